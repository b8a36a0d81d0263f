"""`mfuser bench`: speed and memory on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mfuser_ros.errors import ConfigurationError

Row = dict[str, Any]  # one measurement, as it goes to JSON

VERSION = 1
STARTS = 5
LARGE = "eva02-l"  # the network of the headline
# presets that slide windows, by the published protocol over pictures of Cityscapes
SLIDING = (LARGE, "clip-l", "siglip-l")
NODE = "mfuser_ros.node.overhead"
LIBRARIES = ("torch", "timm", "numpy", "opencv-python-headless")


def bench(
    model: Annotated[
        list[str],
        typer.Option(help="Name in models/, path of a .safetensors, or a preset (random weights); may be repeated."),
    ] = ["small"],  # noqa: B006  # typer copies it
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, float16, bfloat16 or float8.")] = "auto",
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="Of the picture; without it 2048x1024 for large presets.")
    ] = "",
    batch: Annotated[int, typer.Option(min=1, help="Pictures in one call.")] = 1,
    frames: Annotated[int, typer.Option(min=1, help="Calls that are timed.")] = 50,
    stages: Annotated[bool, typer.Option("--stages", help="Also time the parts of a call.")] = False,
    node: Annotated[bool, typer.Option("--node", help="Also time the ROS node around the network.")] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write all figures here; into a folder as DATE-DEVICE.json."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no table.")] = False,
) -> None:
    """Time whole pictures (all steps, array in, mask out), the drivable area and the start; peak memory of each.

    Each is measured in a fresh process. Times are milliseconds of wall time per call. On a GPU also, between CUDA
    events: the network alone at batch 1 and 8 beside its eager float32 form, its stages, the scan, a matmul.

    Example: mfuser bench --stages --model small --model eva02-l --json docs/benchmarks
    """
    width, height = _parsed(size or "1280x720")
    rows: list[Row] = []
    for name in model:
        common = {"model": name, "device": device, "precision": precision}
        of_picture = (2048, 1024) if name in SLIDING and not size else (width, height)
        frame = {"width": of_picture[0], "height": of_picture[1], "frames": frames, "batch": batch, "stages": stages}
        rows += _measure({"what": "frame", **frame, **common})
        if rows[-1]["device"] != "cpu":
            rows += _measure({"what": "network", "frames": frames, **common})
    rows += [
        *_measure({"what": "drivable", "width": width, "height": height, "frames": 4 * frames}),
        *(_node_rows({"width": width, "height": height, "frames": 3 * frames}) if node else []),
        _start("import mfuser_ros", "import mfuser_ros"),
        _start("mfuser --help", "from mfuser_ros.commands.app import main; main()", "--help"),
    ]
    result = {"version": VERSION, "environment": environment(), "rows": rows, "headline": headline(rows)}
    if not quiet:
        _print_table(rows)
    if json_file is not None:
        file = json_file / file_name(result) if json_file.is_dir() else json_file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{file}: cannot be written ({error.strerror}): choose another file") from error


def headline(rows: list[Row]) -> dict[str, float]:
    """The medians that are spoken of, where they were measured."""
    found: dict[str, float] = {}
    for row in rows:
        kind = (row["what"], row.get("model"), row.get("size"), row.get("batch"))
        fast = row.get("backend") == "graph"
        if kind == ("window", LARGE, "512x512", 1) and fast:
            found["window_b1_ms"] = row["ms"]["p50"]
        if kind == ("window", LARGE, "512x512", 8) and fast:
            found["windows_per_s_b8"] = row["windows_per_s"]
        if kind == ("frame", LARGE, "2048x1024", 1):
            found["frame_1024x2048_ms"] = row["ms"]["p50"]
        if kind == ("frame", "small", "1280x720", 1):
            found["small_1280x720_ms"] = row["ms"]["p50"]
    return found


def file_name(result: Row) -> str:
    """DATE-DEVICE.json: the device of the first row, in lower case, its parts joined by hyphens."""
    device = re.sub(r"[^a-z0-9]+", "-", result["rows"][0]["device_name"].lower()).strip("-")
    return f"{result['environment']['date']}-{device}.json"


def environment() -> Row:
    """What a reader must know to compare the figures with others."""
    import platform  # noqa: PLC0415  slow for `mfuser --help`
    from importlib.metadata import version  # noqa: PLC0415

    from mfuser_ros import __version__  # noqa: PLC0415
    from mfuser_ros.evaluation.speed import cpu_name  # noqa: PLC0415

    return {
        "date": time.strftime("%Y-%m-%d"),
        "mfuser_ros": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        **{name: version(name) for name in LIBRARIES},
    }


def _parsed(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ConfigurationError(f"--size {size}: write WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)


def _measure(task: Row, program: str = "mfuser_ros.evaluation.speed") -> list[Row]:
    command = [sys.executable, "-m", program, json.dumps(task)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        reason = finished.stderr.strip().splitlines()[-1:] or [f"it ended with {finished.returncode}"]
        raise ConfigurationError(reason[0])
    rows: list[Row] = json.loads(finished.stdout.splitlines()[-1])
    return rows


def _node_rows(task: Row) -> list[Row]:
    # two cameras at 30 Hz into a network of 10 Hz: how old is what comes out
    slow = {"cameras": 2, "network_ms": 100.0}
    return [*_measure(task, NODE), *_measure(task | slow, NODE)]


def _start(stage: str, code: str, *arguments: str) -> Row:
    from mfuser_ros.evaluation.speed import cpu_name, percentiles  # noqa: PLC0415

    times = []
    for _ in range(STARTS):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL, check=True)
        times.append((time.perf_counter() - begin) * 1e3)
    return {"what": "start", "stage": stage, "device": "cpu", "device_name": cpu_name(), "ms": percentiles(times)}


def _print_table(rows: list[Row]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("what", "device", "size", title=rows[0]["device_name"], title_justify="left", box=None)
    table.columns[0].no_wrap = True
    for column in ("p50 ms", "p95", "p99", "min", "per s", "peak MB"):
        table.add_column(column, justify="right")
    for row in rows:
        what = row.get("stage", row["what"])
        if row["what"] in ("frame", "window", "scan"):
            name = row["model"] if row["what"] == "frame" else f"{row.get('model', '')} {row['what']}".strip()
            what = f"{name}, batch {row['batch']}" + (f", {row['backend']}" if row["what"] != "frame" else "")
        times = [f"{row['ms'][key]:.{1 if row['ms'][key] >= 10 else 3}f}" for key in ("p50", "p95", "p99", "min")]
        rate = row.get("frames_per_s", row.get("windows_per_s"))
        memory = row.get("peak_gpu_mb", row.get("peak_rss_mb"))
        table.add_row(
            what, row["device"], row.get("size", ""), *times,
            f"{rate:.2f}" if rate else "", f"{memory:.0f}" if memory else "",
        )  # fmt: skip
    Console().print(table)
