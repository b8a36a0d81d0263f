"""Time a network on one picture as loaded and after `optimize`; figures go to docs/benchmarks/rewrites-*.json.

    python docs/measure_rewrites.py small eva02-l --device cpu

Weights are random: speed does not depend on them. Three ways take turns, so that a busy machine slows all alike:
`everything` computes what training looks at (all predictions, score map), `predict` the last prediction alone, and
`optimized` is `predict` after `mfuser_ros.network.optimize.optimize`. eva02-l needs 9 GB of memory.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints.store import build
from mfuser_ros.network.config import PRESETS, WindowInput
from mfuser_ros.network.optimize import optimize

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure each preset that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("presets", nargs="+", help="siglip-l alone cannot be: its tokenizer does not ship with us")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "float16"), default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks", help="folder of the JSON")
    options = parser.parse_args()
    for preset in options.presets:
        measured = measure(preset, torch.device(options.device), options.precision, options.repeats)
        name = f"rewrites-{preset}-{options.device}-{options.precision}.json"
        (options.out / name).write_text(json.dumps({"rewrites": measured}, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(measured))


def measure(preset: str, device: torch.device, precision: str, repeats: int) -> dict[str, object]:
    """Median and least time of each way, milliseconds."""
    torch.manual_seed(0)
    architecture = PRESETS[preset]
    network = build(architecture, vocabulary.load().names).eval().requires_grad_(requires_grad=False).to(device)
    rewritten = optimize(copy.deepcopy(network))
    size = (architecture.input.crop,) * 2 if isinstance(architecture.input, WindowInput) else (352, 640)
    picture = torch.rand(1, 3, *size, device=device) * 255
    ways = {"everything": network, "predict": network.predict, "optimized": rewritten.predict}
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode(), torch.autocast(device.type, torch.float16, enabled=precision == "float16"):
        for turn in range(repeats + 1):
            for name, way in ways.items():
                spent = timed(way, picture)
                if turn:  # the first turn warms up, and fills the cache of the text
                    times[name].append(spent)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    return {
        "preset": preset,
        "input": f"{size[1]}x{size[0]}",
        "device": machine if device.type == "cpu" else torch.cuda.get_device_name(),
        "precision": precision,
        "repeats": repeats,
        "ms": {name: {"p50": round(statistics.median(of), 1), "min": round(min(of), 1)} for name, of in times.items()},
        "parameters": {
            "plain": sum(weight.numel() for weight in network.parameters()),
            "optimized": sum(weight.numel() for weight in rewritten.parameters()),
        },
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def timed(way: Callable[[torch.Tensor], object], picture: torch.Tensor) -> float:
    """Wall time of one call, milliseconds."""
    if picture.is_cuda:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    way(picture)
    if picture.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3


if __name__ == "__main__":
    main()
