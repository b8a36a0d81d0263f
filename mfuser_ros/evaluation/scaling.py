"""How the cost of each fusion grows with the tokens: FLOPs from the code, times from this machine.

The paper's claim is that MVFuser's cost is linear in the tokens, where that of self-attention grows with their square.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.evaluation.speed import cpu_name
from mfuser_ros.network.alternatives import build_mixer
from mfuser_ros.network.alternatives.cost import cost
from mfuser_ros.network.config import FusionConfig, FusionKind

FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)
KINDS: tuple[FusionKind, ...] = (
    "self-attention",
    "separate-self-attention",
    "deformable",
    "convolution",
    "cross-attention",
    "separate-mvfuser",
    "mvfuser",
)
_CALLS = 20  # at most
_SECONDS = 3.0  # of timed calls; one that takes longer is timed once


@dataclass(frozen=True)
class Size:
    """Two towers as a preset has them."""

    width: int  # of the tokens that the fusion sees
    rows: int  # of the grid at a factor of 1; even, because half of it is measured
    columns: int
    class_token: bool


SIZES = {
    "small": Size(192, 22, 40, class_token=False),  # a picture of 640x352 at stride 16
    "eva02-l": Size(1024, 36, 36, class_token=True),  # a window of 512x512 in patches of 14
}


@dataclass(frozen=True)
class Point:
    """One fusion after one block, at one number of tokens, for one picture."""

    kind: FusionKind
    factor: float
    tokens: int  # of both towers
    gflops: float
    ms: float  # median
    least_ms: float
    processor_ms: float | None  # least processor time of all threads, which other work does not lengthen; None on a GPU
    calls: int


def measure(size: Size, device: torch.device, *, factors: tuple[float, ...] = FACTORS) -> Iterator[Point]:
    """Measure every fusion at every number of tokens: float32 on a CPU, bfloat16 on a GPU (scans are float32 always).

    Args:
        size: of the towers at a factor of 1.
        device: where it runs.
        factors: of the tokens; the grid gets more rows.

    Raises:
        ConfigurationError: a factor does not give whole rows.
    """
    for kind in KINDS:
        config = FusionConfig(kind=kind, stages=(), width=None)
        torch.manual_seed(0)
        mixer = build_mixer(config, size.width).to(device).eval()
        for factor in factors:
            rows = size.rows * factor
            if rows != int(rows) or rows < 1:
                raise ConfigurationError(f"factor {factor:g} of {size.rows} rows is no whole number: choose another")
            grid = (int(rows), size.columns)
            places = grid[0] * grid[1]
            length = places + size.class_token
            towers = [torch.randn(1, length, size.width, device=device) for _ in range(2)]
            times, busy = zip(*_times(partial(mixer, towers, grid), device), strict=True)
            flops = cost(config, size.width, places=places, batch=1, class_token=size.class_token).flops
            yield Point(
                kind,
                factor,
                2 * length,
                flops / 1e9,
                ms=float(np.median(times)),
                least_ms=min(times),
                processor_ms=None if device.type == "cuda" else min(busy),
                calls=len(times),
            )


def _times(call: Callable[[], object], device: torch.device) -> Iterator[tuple[float, float]]:
    """Milliseconds of single calls by the clock and of the processor, after one that is not counted."""
    on_gpu = device.type == "cuda"
    low = torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext()
    with torch.inference_mode(), low:
        call()
        began = time.perf_counter()
        for _ in range(_CALLS):
            if on_gpu:
                torch.cuda.synchronize(device)
            start, busy = time.perf_counter(), time.process_time()
            call()
            if on_gpu:
                torch.cuda.synchronize(device)
            end, busy_end = time.perf_counter(), time.process_time()
            yield 1e3 * (end - start), 1e3 * (busy_end - busy)
            if end - began > _SECONDS:
                break


def growth(points: list[Point], kind: FusionKind, value: str) -> float:
    """Exponent p of the power law tokens^p that fits best, by least squares of the logarithms.

    Args:
        points: of `measure`.
        kind: whose.
        value: `gflops`, `ms`, `least_ms` or `processor_ms`.
    """
    own = [point for point in points if point.kind == kind]
    slope, _ = np.polyfit(np.log([point.tokens for point in own]), np.log([getattr(point, value) for point in own]), 1)
    return float(slope)


def as_json(name: str, points: list[Point], device: torch.device, environment: dict[str, Any]) -> dict[str, Any]:
    """What `mfuser info --table scaling --json` writes; `environment` as `mfuser bench` states it."""
    return {
        "version": 1,
        "preset": name,
        "size": asdict(SIZES[name]),
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": "bfloat16" if device.type == "cuda" else "float32",
        "environment": environment,
        "fusions": [asdict(point) for point in points],
    }


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def draw(points: list[Point], title: str, path: Path) -> None:
    """Write a PNG: FLOPs and time of each fusion over the tokens, both axes logarithmic.

    The time is the least of the calls: on a CPU that of the processor, on a GPU that by the clock.

    Args:
        points: of `measure`.
        title: says preset and device.
        path: of the PNG.

    Raises:
        ConfigurationError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ConfigurationError("--plot needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    tokens = sorted({point.tokens for point in points})
    measured = "least_ms" if points[0].processor_ms is None else "processor_ms"
    for panel, value, label in zip(panels, ("gflops", measured), ("GFLOPs", "milliseconds"), strict=True):
        for number, kind in enumerate(KINDS):
            own = [point for point in points if point.kind == kind]
            panel.plot(
                [point.tokens for point in own],
                [getattr(point, value) for point in own],
                marker="o",
                markersize=4,
                color=f"C{number}",
                linewidth=3 if kind == "mvfuser" else 1.5,
                linestyle="--" if kind.startswith("separate") else "-",
                label=f"{kind}, tokens^{growth(points, kind, value):.2f}",
                zorder=3 if kind == "mvfuser" else 2,
            )
        panel.set(xscale="log", yscale="log", ylabel=label, xlabel="tokens of both towers")
        panel.set_xticks(tokens, [f"{count:,}" for count in tokens], rotation=30)
        panel.minorticks_off()
        panel.grid(color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize="small", frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncol=2)
    panels[0].set_title("counted from the code", fontsize="medium")
    what = "time" if measured == "least_ms" else "processor time"
    panels[1].set_title(f"measured: {what}, the least of the calls", fontsize="medium")
    figure.suptitle(title)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be written ({error}): choose another file ending in .png") from error
