"""`mfuser bench`: speed and memory on this machine."""

from __future__ import annotations

import json
import os
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
NODE = "mfuser_ros.node.overhead"
LIBRARIES = ("torch", "timm", "numpy", "opencv-python-headless")


def bench(
    model: Annotated[str, typer.Option(help="Name in models/ or path of a .safetensors.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")] = "auto",
    size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="Of the picture.")] = "1280x720",
    batch: Annotated[int, typer.Option(min=1, help="Pictures in one call.")] = 1,
    frames: Annotated[int, typer.Option(min=1, help="Calls that are timed.")] = 50,
    stages: Annotated[bool, typer.Option("--stages", help="Also time the parts of a call.")] = False,
    node: Annotated[bool, typer.Option("--node", help="Also time the ROS node around the network.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no table.")] = False,
) -> None:
    """Time whole pictures (all steps, array in, mask out), the drivable area and the start; peak memory of each.

    Each is measured in a fresh process. Times are milliseconds of wall time per call.

    Example: mfuser bench --stages --json bench.json
    """
    width, height = _parsed(size)
    frame = {"model": model, "device": device, "precision": precision, "batch": batch, "stages": stages}
    rows = [
        *_measure({"what": "frame", "width": width, "height": height, "frames": frames, **frame}),
        *_measure({"what": "drivable", "width": width, "height": height, "frames": 4 * frames}),
        *(_node_rows({"width": width, "height": height, "frames": 3 * frames}) if node else []),
        _start("import mfuser_ros", "import mfuser_ros"),
        _start("mfuser --help", "from mfuser_ros.commands.app import main; main()", "--help"),
    ]
    result = {"version": VERSION, "environment": environment(), "rows": rows, "headline": headline(rows)}
    if not quiet:
        _print_table(rows)
    if json_file is not None:
        try:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"{json_file}: cannot be written ({error.strerror}): choose another file"
            ) from error


def headline(rows: list[Row]) -> dict[str, float]:
    """The medians that are spoken of, where they were measured."""
    return {
        f"small_{row['size']}_ms": row["ms"]["p50"]
        for row in rows
        if row["what"] == "frame" and (row["model"], row["size"], row["batch"]) == ("small", "1280x720", 1)
    }


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
        what = row.get("stage", row["what"]) if row["what"] != "frame" else f"{row['model']}, batch {row['batch']}"
        times = [f"{row['ms'][key]:.1f}" for key in ("p50", "p95", "p99", "min")]
        rate, memory = row.get("frames_per_s"), row.get("peak_rss_mb")
        table.add_row(
            what, row["device"], row.get("size", ""), *times,
            f"{rate:.2f}" if rate else "", f"{memory:.0f}" if memory else "",
        )  # fmt: skip
    Console().print(table)
