"""summary.json, frames.parquet and the notes of a live measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mfuser_ros.evaluation.bag.settings import BagSettings
from mfuser_ros.evaluation.limits import Limit, judge
from mfuser_ros.evaluation.summary import VERSION
from mfuser_ros.node.live import Live
from mfuser_ros.node.live_figures import Played, figures
from mfuser_ros.node.peak import FIXED_HZ, LOWEST_HZ
from mfuser_ros.node.usage import FIGURES

FRAMES = "frames.parquet"

BUSY_PERCENT = 25.0
"""Of all cores: what other processes may use before it is told."""

SECTION = "live."
"""Metrics of limits may be named with it or without."""


def check_limits(limits: Sequence[Limit], cameras: Sequence[str]) -> None:
    """See before a long run that limits are on what will be measured.

    Raises:
        ConfigurationError: a limit names no metric; the text lists those there are.
    """
    run = figures({name: [] for name in cameras}) | dict.fromkeys(FIGURES)
    fixed = [{"name": f"{rate:g}hz", **run} for rate in FIXED_HZ]
    blank = run | dict.fromkeys(("peak", "warm_up", "latency_ms")) | {"fixed": fixed}
    judge(blank, [_named(limit) for limit in limits])


def live_summary(live: Live, *, source: str, settings: BagSettings, limits: Sequence[Limit]) -> dict[str, Any]:  # JSON
    """What summary.json holds: keys of every evaluation, None where they are of labels, and the section `live`.

    Args:
        live: what was measured.
        source: what was played.
        settings: of the run.
        limits: to judge; metrics are those of the section `live`, such as age_p99_ms, or latency_ms.p95.

    Raises:
        ConfigurationError: a limit names no metric; the text lists those there are.
    """
    latency_ms = {name: live.figures[f"age_{name}_ms"] for name in ("p50", "p95", "p99")}
    return {
        "version": VERSION,
        "input": source,
        "model": live.model,
        "frames": live.figures["pictures"],
        "classes": [],
        **dict.fromkeys(("miou", "pixel_accuracy", "confusion", "road")),
        "calibration": {"ece": None},
        "boundary_iou": None,
        "latency_ms": latency_ms,
        "drivable": None,
        "temporal": {"flips_per_s": None},
        "limits": judge(live.figures | {"latency_ms": latency_ms}, [_named(limit) for limit in limits]),
        "live": live.figures,
        "incomplete": live.damage.incomplete,
        "corrupt_messages": live.damage.messages,
        "settings": settings.model_dump(mode="json", exclude={"labels", "scheme", "label_tolerance_s", "stills"})
        | {"device": live.device},
        "environment": {
            "python": platform.python_version(), "torch": _version("torch"), "rclpy": _version("ros-rclpy"),
            "rmw": os.environ.get("RMW_IMPLEMENTATION", "default"), "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
    }  # fmt: skip


def live_notes(section: Mapping[str, Any]) -> list[str]:
    """What must be known before the section `live` is trusted: a slow player, a busy machine, no peak."""
    notes = []
    runs = [("the bag's rate", section), *((entry["name"].replace("hz", " Hz"), entry) for entry in section["fixed"])]
    for name, run in runs:
        if not run["player_kept_rate"]:
            notes.append(
                f"{name}: the player sent {run['played_hz']:.2f} pictures a second instead of {run['wanted_hz']:.2f}: "
                "drops and rate are not the node's alone, play on a machine with more to spare"
                if run["played_hz"] is not None
                else f"{name}: the player sent too few pictures to tell its rate"
            )
    if not section["masks"]:
        notes.append("the bag's rate: not one mask came: every picture was dropped or older than max_age")
    others = section["others_cpu_percent"]
    if others is not None and others > BUSY_PERCENT:
        notes.append(f"other processes used {others:.0f} % of the machine's cores: a free machine does better")
    peak = section["peak"]
    if peak is not None and peak["rate_hz"] is None:
        notes.append(
            f"no peak: 5 % of the pictures or more are lost at {LOWEST_HZ:g} Hz, the lowest rate that is tried"
        )
    elif peak is not None and peak["limited_by"] == "player":
        notes.append("peak: the player could not send faster: the node may do more")
    elif peak is not None and peak["limited_by"] == "search":
        notes.append("peak: no higher rate was tried: the node may do more")
    return notes


def write_frames(played: Mapping[str, Sequence[Played]], folder: Path) -> Path:
    """Write frames.parquet: a row for each picture at the bag's rate with camera, index, time_s, late_ms and age_ms.

    `time_s` is when it was sent after the run began, `late_ms` how much later than due, `age_ms` null without a mask.
    """
    rows = [(name, index, picture) for name, pictures in played.items() for index, picture in enumerate(pictures)]
    rows.sort(key=lambda row: row[2].sent_s)
    ages = [None if entry.mask_s is None else (entry.mask_s - entry.sent_s) * 1e3 for _, _, entry in rows]
    table = pa.table(
        {
            "camera": pa.array([name for name, _, _ in rows], pa.string()),
            "index": pa.array([index for _, index, _ in rows], pa.int64()),
            "time_s": pa.array([entry.sent_s for _, _, entry in rows], pa.float64()),
            "late_ms": pa.array([(entry.sent_s - entry.due_s) * 1e3 for _, _, entry in rows], pa.float64()),
            "age_ms": pa.array(ages, pa.float64()),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / FRAMES, compression="zstd")
    return folder / FRAMES


def _named(limit: Limit) -> Limit:
    return replace(limit, metric=limit.metric.removeprefix(SECTION))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # as rclpy of a sourced ROS
        return None
