"""Convert random checkpoints of the full published size; peak memory and time go to docs/benchmarks/convert-*.json.

    python docs/measure_conversion.py eva02-l clip-l siglip-l --scratch /tmp

Names, shapes and types are those of the published networks (test/golden/keys_*_full.txt.gz), so every key is walked;
the numbers are random. The scratch folder needs 7 GB. `docs/tables.py` puts the figures into docs/checkpoints.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LISTS = ROOT / "test" / "golden"
PRESETS = ("eva02-l", "clip-l", "siglip-l")
CLASSES = 19
SIGLIP_TOKENS = 5


def main() -> None:
    """Measure each preset that is asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("presets", nargs="*", default=PRESETS, help=f"some of {', '.join(PRESETS)}; all by default")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder for the big files")
    parser.add_argument("--container", choices=("pth", "safetensors"), default="pth", help="of the random checkpoint")
    parser.add_argument("--drop-text", action="store_true", help="leave the text tower out of what is written")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks", help="folder of the JSON")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)  # the child that writes the random checkpoint
    options = parser.parse_args()
    if options.make:
        make(options.presets[0], options.make)
        return
    for preset in options.presets:
        measured = measure(preset, options.scratch, options.container, drop_text=options.drop_text)
        name = f"convert-{preset}-{options.container}{'-drop-text' if options.drop_text else ''}.json"
        (options.out / name).write_text(json.dumps({"conversion": measured}, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(measured))


def measure(preset: str, scratch: Path, container: str, *, drop_text: bool) -> dict[str, object]:
    """Make a random checkpoint, convert it in a process of its own, and say what that took."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        source, target = Path(folder) / f"random-{preset}.{container}", Path(folder) / f"{preset}.safetensors"
        run([sys.executable, __file__, preset, "--make", str(source)])
        arguments = ["convert", str(source), str(target)]
        if drop_text:
            arguments.append("--drop-text")
        if preset == "siglip-l":
            tokens = Path(folder) / "ids.json"
            tokens.write_text(json.dumps(made_up_ids()))
            arguments += ["--tokens", str(tokens)]
        program = "from mfuser_ros.commands.app import main; main()"
        seconds, peak_mb = run([sys.executable, "-c", program, *arguments])
        check_s, check_peak_mb = run([sys.executable, "-c", program, "info", str(target)])
        return {
            "preset": preset,
            "container": container,
            "drop_text": drop_text,
            "keys": sum(1 for _ in listed(preset)),
            "source_mb": round(source.stat().st_size / 1e6),
            "written_mb": round(target.stat().st_size / 1e6),
            "seconds": round(seconds, 1),
            "peak_rss_mb": round(peak_mb),
            "info_seconds": round(check_s, 1),
            "info_peak_rss_mb": round(check_peak_mb),
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
        }


def run(command: list[str]) -> tuple[float, float]:
    """Run a command; its wall time in seconds and the largest resident memory of its process in MB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    # this process stays small: what a child resided in before it became the command would count as the command's
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: failed with {process.returncode}")
    return time.perf_counter() - begin, usage.ru_maxrss * 1024 / 1e6


def listed(preset: str) -> Iterator[tuple[str, list[int], str]]:
    """Name, shape and type of every tensor in a published checkpoint."""
    for line in gzip.decompress((LISTS / f"keys_{preset}_full.txt.gz").read_bytes()).decode().splitlines():
        if not line.startswith("#"):
            name, shape, dtype, _ = line.split("\t")
            yield name, [] if shape == "scalar" else [int(side) for side in shape.split("x")], dtype


def make(preset: str, path: Path) -> None:
    """Write a random checkpoint as mmcv does: `meta` of plain text beside the state dict."""
    import torch  # noqa: PLC0415  # in the child alone, see `run`
    from safetensors.torch import save_file  # noqa: PLC0415

    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape, dtype in listed(preset):
        if dtype == "float32":
            weights[name] = torch.randn(shape, generator=generator) * 0.02
            if name.endswith("running_var"):
                weights[name].abs_()
        else:
            weights[name] = torch.zeros(shape, dtype=getattr(torch, dtype))
    if path.suffix == ".pth":
        meta = {"CLASSES": ("road",), "iter": 20000, "config": "model = dict()", "time": "Thu Jun  5 2025"}
        torch.save({"meta": meta, "state_dict": weights}, path)
    else:
        save_file(weights, path)


def made_up_ids() -> dict[str, list[int]]:
    """Token ids for SigLIP, whose real ones are not known here."""
    from mfuser_ros import vocabulary  # noqa: PLC0415  # needs the path that `run` sets, or an installed package

    names = vocabulary.load().names
    assert len(names) == CLASSES
    return {name: [2 + index, 1, 1, 1, 1][:SIGLIP_TOKENS] for index, name in enumerate(names)}


if __name__ == "__main__":
    main()
