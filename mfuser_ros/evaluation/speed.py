"""How long a picture takes, and how much memory: measured in a process of its own, which `mfuser bench` starts.

`python -m mfuser_ros.evaluation.speed '{"what": "frame", ...}'` measures one task and prints a JSON list of rows as its
last line. A fresh process makes the peak of memory that of this task alone.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from mfuser_ros import vocabulary

Row = dict[str, Any]  # one measurement, as it goes to JSON


class Task(BaseModel):
    """What one process measures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: Literal["frame", "drivable", "network"]
    width: PositiveInt = 1280  # of the picture, pixels; the network's own parts know their size
    height: PositiveInt = 720
    frames: PositiveInt  # calls that are timed
    model: str = "small"
    device: str = "auto"
    precision: Literal["auto", "float32", "float16", "bfloat16", "float8"] = "auto"
    batch: PositiveInt = 1
    stages: bool = False

    @property
    def size(self) -> str:
        """WIDTHxHEIGHT."""
        return f"{self.width}x{self.height}"


def measure(task: Task) -> list[Row]:
    """Do a task in this process.

    Raises:
        MFuserError: the model, the device or a size cannot be used.
    """
    if task.what == "network":
        return _network_rows(task)
    return _frame_rows(task) if task.what == "frame" else [_drivable_row(task)]


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    """p50, p95, p99 (linear between samples) and min of a list of times, rounded to a microsecond."""
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99]).tolist()
    return {
        name: round(value, 3) for name, value in (("p50", p50), ("p95", p95), ("p99", p99), ("min", min(milliseconds)))
    }


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, MB of 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count what the parent held when it started us
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) * 1024 / 1e6, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)


def _timed(call: Callable[[], object], frames: int) -> Iterator[float]:
    for _ in range(frames):
        start = time.perf_counter()
        call()
        yield (time.perf_counter() - start) * 1e3


def _frame_rows(task: Task) -> list[Row]:
    import torch  # noqa: PLC0415  the drivable area is measured without torch in memory

    from mfuser_ros.evaluation import gpu_speed  # noqa: PLC0415
    from mfuser_ros.inference.loading import choose_device, choose_precision, load  # noqa: PLC0415

    start = time.perf_counter()
    random = gpu_speed.is_without_weights(task.model)
    if random:
        chosen = choose_device(task.device)
        segmenter = gpu_speed.random_segmenter(task.model, chosen, choose_precision(task.precision, chosen))
    else:
        segmenter = load(task.model, device=task.device, precision=task.precision)
    pictures = [_picture(task.height, task.width, seed) for seed in range(task.batch)]
    segmenter(pictures)
    first_mask_ms = (time.perf_counter() - start) * 1e3
    segmenter.warm_up(task.height, task.width, batch=task.batch, wait=True)
    fast_ms = (time.perf_counter() - start) * 1e3
    segmenter(pictures)  # the second call still meets cold caches
    times, stages = [], []
    for ms in _timed(lambda: segmenter(pictures), task.frames):
        times.append(ms)
        stages.append(segmenter.timing)
    device = torch.device(segmenter.device)
    gpu = {"peak_gpu_mb": round(torch.cuda.max_memory_allocated(device) / 1e6, 1)} if device.type == "cuda" else {}
    common = {
        "model": segmenter.name,
        "device": segmenter.device,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "size": task.size,
        "batch": task.batch,
        "precision": segmenter.precision,
        "backend": segmenter.state,
        "weights": "random" if random else "trained",
    }
    whole = percentiles(times)
    rate = round(task.batch * 1e3 / whole["p50"], 3)
    memory = {"peak_rss_mb": peak_rss_mb(), **gpu}
    rows: list[Row] = [{"what": "frame", **common, "ms": whole, "frames_per_s": rate, **memory}]
    if task.stages:
        for stage in ("preprocess", "inference", "postprocess"):
            spent = [getattr(timing, f"{stage}_ms") for timing in stages]
            rows.append({"what": "stage", "stage": stage, **common, "ms": percentiles(spent)})
    rows.append({"what": "start", "stage": "load to first mask", **common, "ms": percentiles([first_mask_ms])})
    if device.type == "cuda":
        rows.append({"what": "start", "stage": "load to full speed", **common, "ms": percentiles([fast_ms])})
    return rows


def _network_rows(task: Task) -> list[Row]:
    """The network's forward pass and its parts, on a GPU; no rows on a CPU, where a frame has no parts worth it."""
    from mfuser_ros.evaluation import gpu_speed  # noqa: PLC0415
    from mfuser_ros.inference.loading import choose_device, choose_precision  # noqa: PLC0415

    device = choose_device(task.device)
    if device.type == "cpu":
        return []
    precision = choose_precision(task.precision, device)
    what = gpu_speed.subject(task.model)
    rows = gpu_speed.window_rows(what, device, precision, (1, 8), task.frames)
    return [*rows, *gpu_speed.scan_rows(device, task.frames)]


def _drivable_row(task: Task) -> Row:
    from mfuser_ros.drivable import CameraModel, DrivableArea, GridSpec, View  # noqa: PLC0415

    cv2.setNumThreads(1)  # the budget is for one core
    words = vocabulary.load()
    focal = 0.9 * task.width
    camera = CameraModel(task.width, task.height, [focal, 0, task.width / 2, 0, focal, task.height / 2, 0, 0, 1])
    # looks along x from 1.5 m above the ground: optical z is the vehicle's x, optical x its -y, optical y its -z
    T_vehicle_camera = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    mask = _street(task.height, task.width, {entry.name: entry.id for entry in words.classes})
    view = View(mask, np.full_like(mask, 255), camera, T_vehicle_camera)
    spec = GridSpec()
    area = DrivableArea(spec, words)
    start = time.perf_counter()
    area.update([view])
    planning_ms = (time.perf_counter() - start) * 1e3
    ms = percentiles(list(_timed(lambda: area.update([view]), task.frames)))
    return {
        "what": "drivable",
        "device": "cpu",
        "device_name": cpu_name(),
        "threads": 1,
        "size": task.size,
        "batch": 1,
        "ms": ms,
        "first_ms": round(planning_ms, 3),
        "frames_per_s": round(1e3 / ms["p50"], 3),
        "peak_rss_mb": peak_rss_mb(),
    }


def cpu_name() -> str:
    """The processor as the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def _picture(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth noise; what a picture shows does not change how long the network takes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (max(height // 16, 1), max(width // 16, 1), 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def _street(height: int, width: int, ids: dict[str, int]) -> np.ndarray:
    """(height, width) uint8 mask: sky, houses, a road that narrows between sidewalks, and a car on it."""
    mask = np.full((height, width), ids["sky"], np.uint8)
    horizon = height // 2
    mask[horizon - height // 6 : horizon + height // 20] = ids["building"]
    mask[horizon + height // 20 :] = ids["sidewalk"]
    road = np.array([[width * 0.1, height], [width * 0.45, horizon], [width * 0.55, horizon], [width * 0.9, height]])
    cv2.fillPoly(mask, [road.astype(np.int32)], ids["road"])
    cv2.rectangle(mask, (int(width * 0.46), int(height * 0.5)), (int(width * 0.54), int(height * 0.62)), ids["car"], -1)
    return mask


if __name__ == "__main__":
    from mfuser_ros.errors import MFuserError

    try:
        print(json.dumps(measure(Task.model_validate_json(sys.argv[1]))))
    except ValidationError as error:
        first = error.errors()[0]
        sys.exit(f"{first['loc'][0]} {first['input']!r}: {first['msg']}")
    except MFuserError as error:
        sys.exit(str(error))
