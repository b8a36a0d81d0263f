"""The part of `mfuser evaluate` that works on bags."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mfuser_ros.commands.progress import track
from mfuser_ros.errors import ConfigurationError

if TYPE_CHECKING:
    from mfuser_ros.drivable import CameraModel
    from mfuser_ros.evaluation.bag.collect import Job
    from mfuser_ros.evaluation.bag.settings import BagSettings, Edge


def is_bag(text: str) -> bool:
    """Whether an argument names a bag rather than a data set."""
    from mfuser_ros.bags.recording import is_bag  # noqa: PLC0415  rosbags takes its time to import

    return is_bag(Path(text))


def evaluate_bags(bags: Sequence[Path], settings: BagSettings, *, out: Path | None, quiet: bool) -> None:
    """Evaluate bags, print what came out, write it below `out`.

    Raises:
        typer.Exit: with code 2, when a bag is damaged; what could be read is evaluated all the same.
    """
    from mfuser_ros.evaluation.bag.collect import Job, collect  # noqa: PLC0415  torch takes its time to import
    from mfuser_ros.evaluation.bag.report import bags_report  # noqa: PLC0415
    from mfuser_ros.evaluation.bag.run import load_segmenter  # noqa: PLC0415
    from mfuser_ros.evaluation.report.page import write_report  # noqa: PLC0415
    from mfuser_ros.evaluation.summary import write_summary  # noqa: PLC0415

    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mfuser_evaluate_")))
        segmenter = load_segmenter(settings)
        jobs = [Job(bag, folder, settings, edge(), segmenter) for bag in bags]
        total = sum(job.expected for job in jobs)
        for _ in track(_frames(jobs), total=total or None, what="frames", quiet=quiet):
            pass
        folders = [job.folder for job in jobs]
        source = " ".join(map(str, bags))
        summary, calibration = collect(folders, folder, source=source, settings=settings, segmenter=segmenter)
        write_summary(summary, folder)
        if out is not None:
            page = write_report(bags_report(summary, folders, calibration, segmenter.vocabulary), folder)
    if not quiet:
        print_table(summary)
        if out is not None:
            print(page)
    _tell_damage(summary)


def edge() -> Edge:
    """What turns messages into arrays."""
    from mfuser_ros.evaluation.bag.settings import Edge  # noqa: PLC0415
    from mfuser_ros.node.calibration import pose_matrix  # noqa: PLC0415
    from mfuser_ros.node.images import to_rgb  # noqa: PLC0415

    return Edge(to_rgb, camera_of, pose_matrix)


def camera_of(info: Any, *, rectified: bool) -> CameraModel:  # Any: rosbags' classes are made at run time
    """The lens that a CameraInfo describes."""
    from mfuser_ros.drivable import CameraModel  # noqa: PLC0415
    from mfuser_ros.node.calibration import intrinsics  # noqa: PLC0415

    found = intrinsics(info, rectified=rectified)
    return CameraModel(found.width, found.height, found.K, found.D, found.model)


def by_topic(values: Sequence[str], option: str) -> dict[str, str]:
    """`VALUE` and `TOPIC=VALUE` as a table; the value without a topic stands under the empty one."""
    table: dict[str, str] = {}
    for text in values:
        topic, _, value = text.rpartition("=") if text.startswith("/") and "=" in text else ("", "", text)
        if topic in table:
            raise ConfigurationError(f"{option} {text}: given twice for {topic or 'all topics'}: write TOPIC=VALUE")
        table[topic] = value
    return table


def poses(values: Sequence[str]) -> dict[str, tuple[float, float, float, float, float, float]]:
    """`--pose` by topic: six numbers, separated by commas or blanks."""
    table = {}
    for topic, text in by_topic(values, "--pose").items():
        try:
            x, y, z, roll, pitch, yaw = (float(number) for number in text.replace(",", " ").split())
        except ValueError as error:
            raise ConfigurationError(
                f"--pose {text}: give x,y,z,roll,pitch,yaw in metres and radians, such as 1.5,0,1.4,-1.5708,0,-1.5708"
            ) from error
        table[topic] = (x, y, z, roll, pitch, yaw)
    return table


def print_table(summary: dict[str, Any]) -> None:  # JSON
    """Print the main figures of a summary of bags."""
    from rich.console import Console  # noqa: PLC0415  only where something is printed
    from rich.table import Table  # noqa: PLC0415

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    model = summary["model"]["name"]
    labelled = summary["labelled_frames"]
    table = Table(title=f"{summary['input']}, {summary['frames']} frames, {labelled} with labels, {model}")
    table.add_column("class")
    columns = ("iou", "precision", "recall", "share") if labelled else ("share",)
    for column in columns:
        table.add_column("IoU" if column == "iou" else column, justify="right")
    for entry in summary["classes"]:
        table.add_row(entry["name"], *(percent(entry[key]) for key in columns))
    table.add_section()
    predicted, drivable = summary["predicted"], summary["drivable"] or {}
    rows = [
        ("mean IoU", percent(summary["miou"]) if labelled else None),
        ("pixel accuracy", percent(summary["pixel_accuracy"]) if labelled else None),
        ("calibration error", percent(summary["calibration"]["ece"]) if labelled else None),
        ("drivable IoU, picture", percent(drivable["iou"]) if labelled and drivable else None),
        ("drivable IoU, ground", percent(drivable["iou_m"]) if labelled and drivable else None),
        ("free ground (median m²)", f"{drivable['free_m2']:.0f}" if drivable.get("free_m2") is not None else None),
        ("mean confidence", percent(predicted["confidence"])),
        ("unknown", percent(predicted["unknown_share"])),
        ("flips per second", _decimal(summary["temporal"]["flips_per_s"])),
        ("latency p50, p95 (ms)", ", ".join(_decimal(summary["latency_ms"][key]) for key in ("p50", "p95"))),
    ]
    for name, value in rows:
        if value is not None:
            table.add_row(name, value)
    Console().print(table)


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _frames(jobs: Sequence[Job]) -> Iterator[None]:
    for job in jobs:
        for _ in job.frames():
            yield None


def _tell_damage(summary: dict[str, Any]) -> None:
    damaged = False
    for bag in summary["bags"]:
        for line in bag["damage"]:
            damaged = True
            print(f"mfuser: {bag['path']}: {line}", file=sys.stderr)
    if damaged:
        raise typer.Exit(2)
