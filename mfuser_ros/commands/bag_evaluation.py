"""What `mfuser evaluate` does with bags. Imports what takes time; the verb imports it when it is called."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mfuser_ros.commands.limits import tell_limits
from mfuser_ros.commands.progress import track
from mfuser_ros.drivable import CameraModel
from mfuser_ros.errors import ConfigurationError, InputError
from mfuser_ros.evaluation.bag.collect import collect
from mfuser_ros.evaluation.bag.fleet.pool import run_here, run_pool
from mfuser_ros.evaluation.bag.fleet.task import Done, Task, bag_folder, expected_frames, pinned
from mfuser_ros.evaluation.bag.report import bags_report
from mfuser_ros.evaluation.bag.run import load_segmenter
from mfuser_ros.evaluation.bag.scheme import load_scheme
from mfuser_ros.evaluation.bag.settings import BagSettings, Edge, Pose
from mfuser_ros.evaluation.limits import Limit, judge
from mfuser_ros.evaluation.report.page import write_report
from mfuser_ros.evaluation.report.set_report import percent
from mfuser_ros.evaluation.summary import write_summary
from mfuser_ros.node.calibration import intrinsics, pose_matrix
from mfuser_ros.node.images import to_rgb


@dataclass(frozen=True)
class Verdict:
    """How an evaluation ended.

    Attributes:
        damaged: whether something in the bags could not be read.
        holds: whether every limit is kept.
    """

    damaged: bool
    holds: bool

    @property
    def code(self) -> int:
        """Exit code of the command: bad input outweighs a broken limit."""
        return 2 if self.damaged else 0 if self.holds else 1


@dataclass(frozen=True)
class Crew:
    """Who does the work.

    Attributes:
        workers: number of processes; of actors on a cluster, where 0 stands for as many as it has room for.
        ray: address of a Ray cluster; None: this machine.
    """

    workers: int = 1
    ray: str | None = None

    def run(self, tasks: Sequence[Task], out: Path, settings: BagSettings) -> Generator[None, None, Sequence[Done]]:
        """Evaluate bags; yields for every frame."""
        if self.ray is not None:
            from mfuser_ros.evaluation.bag.fleet.cluster import run_cluster  # noqa: PLC0415  ray is optional

            return run_cluster(tasks, out, settings, address=self.ray, workers=self.workers or None)
        if self.workers > 1:
            return run_pool(tasks, out, settings, workers=self.workers)
        return run_here(tasks, out, settings)


def evaluate_bags(
    bags: Sequence[str],
    settings: BagSettings,
    *,
    limits: Sequence[Limit] = (),
    out: Path | None,
    quiet: bool,
    crew: Crew = Crew(),
) -> Verdict:
    """Evaluate bags, print what came out, and write summary.json, frames.parquet and report.html into `out`, if given.

    What is damaged is named on stderr; what could be read is evaluated all the same.

    Raises:
        InputError: no bag can be read.
    """
    settings = pinned(settings)
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mfuser_evaluate_")))
        done = evaluate_all(bags, settings, folder, crew, quiet=quiet)
        unreadable = [result.error for result in done if result.error]
        if len(unreadable) == len(done):
            raise InputError(unreadable[0])
        folders = [bag_folder(folder, result.key) for result in done if result.key]
        segmenter = load_segmenter(settings)
        source = " ".join(bags)
        summary, calibration = collect(folders, folder, source=source, settings=settings, segmenter=segmenter)
        summary["unreadable"] = unreadable
        summary["limits"] = judge(summary, limits)
        if not quiet:
            print_table(summary)
        if out is not None:
            page = write_report(bags_report(summary, folders, calibration, segmenter.vocabulary), out)
            write_summary(summary, out)
            if not quiet:
                print(page)
    return Verdict(damaged=_tell_damage(summary), holds=tell_limits(summary))


def evaluate_all(bags: Sequence[str], settings: BagSettings, out: Path, crew: Crew, *, quiet: bool) -> Sequence[Done]:
    """What became of each bag; shows progress."""
    tasks = [Task(bag, settings, edge()) for bag in bags]
    counts = [expected_frames(bag, settings) for bag in bags]
    return progress(crew.run(tasks, out, settings), total=sum(counts) if all(counts) else None, quiet=quiet)


def progress(work: Generator[None, None, Sequence[Done]], *, total: int | None, quiet: bool) -> Sequence[Done]:
    """Do the work to its end and show how far it is; what it returns."""
    results: list[Sequence[Done]] = []

    def frames() -> Iterator[None]:
        results.append((yield from work))

    for _ in track(frames(), total=total, what="frames", quiet=quiet):
        pass
    return results[0]


def settings_of(*, labels: Sequence[str], poses: Sequence[str], scheme: str | None, **plain: Any) -> BagSettings:
    """The settings that options of the command stand for.

    Args:
        labels: `[TOPIC=]WHERE`.
        poses: `[TOPIC=]X,Y,Z,ROLL,PITCH,YAW`.
        scheme: name of a data set, or a YAML file.
        plain: all other fields of `BagSettings`.

    Raises:
        ConfigurationError: an option has another form, or the scheme breaks a rule.
    """
    return BagSettings(
        labels={"": "auto"} | by_topic(labels, "--labels"),
        poses=_poses(poses),
        scheme=None if scheme is None else load_scheme(scheme),
        **plain,
    )


def edge() -> Edge:
    """What turns messages into arrays."""
    return Edge(to_rgb, camera_of, pose_matrix)


def camera_of(info: Any, *, rectified: bool) -> CameraModel:  # Any: rosbags' classes are made at run time
    """The lens that a CameraInfo describes."""
    found = intrinsics(info, rectified=rectified)
    return CameraModel(found.width, found.height, found.K, found.D, found.model)


def by_topic(values: Sequence[str], option: str) -> dict[str, str]:
    """`VALUE` and `TOPIC=VALUE` as a table; the value without a topic stands under the empty one."""
    table: dict[str, str] = {}
    for text in values:
        topic, _, value = text.partition("=") if text.startswith("/") and "=" in text else ("", "", text)
        if topic in table:
            raise ConfigurationError(f"{option} {text}: given twice for {topic or 'all topics'}: write TOPIC=VALUE")
        table[topic] = value
    return table


def _poses(values: Sequence[str]) -> dict[str, Pose]:
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
    labelled = summary["labelled_frames"]
    table = Table(title=f"{summary['frames']} frames, {labelled} with labels, {summary['model']['name']}")
    table.add_column("class")
    columns = ("iou", "precision", "recall", "share") if labelled else ("share",)
    for column in columns:
        table.add_column("IoU" if column == "iou" else column, justify="right")
    for entry in summary["classes"]:
        table.add_row(entry["name"], *(percent(entry[key]) for key in columns))
    table.add_section()
    predicted, drivable = summary["predicted"], summary["drivable"] or {}
    of_labels = [
        ("mean IoU", percent(summary["miou"])),
        ("pixel accuracy", percent(summary["pixel_accuracy"])),
        ("boundary IoU", percent(summary["boundary_iou"])),
        ("calibration error", percent(summary["calibration"]["ece"])),
        ("drivable IoU, picture", percent(drivable.get("iou"))),
        ("drivable IoU, ground", percent(drivable.get("iou_m"))),
    ]
    rows = [
        ("free ground (median m²)", _decimal(drivable.get("free_m2"))),
        ("mean confidence", percent(predicted["confidence"])),
        ("unknown", percent(predicted["unknown_share"])),
        ("flips of a point per second", _decimal(summary["temporal"]["flips_per_s"])),
        ("latency p50 (ms)", _decimal(summary["latency_ms"]["p50"])),
        ("latency p95 (ms)", _decimal(summary["latency_ms"]["p95"])),
    ]
    for name, value in (of_labels if labelled else []) + rows:
        if value != "-":
            table.add_row(name, value)
    Console().print(table)


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.3f}"


def _tell_damage(summary: dict[str, Any]) -> bool:
    """Name on stderr what was damaged; whether anything was."""
    for bag in summary["bags"]:
        for line in bag["damage"]:
            print(f"mfuser: {bag['path']}: {line}", file=sys.stderr)
    for line in summary["unreadable"]:
        print(f"mfuser: {line}", file=sys.stderr)
    return bool(summary["incomplete"] or summary["corrupt_messages"] or summary["unreadable"])
