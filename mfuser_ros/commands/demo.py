"""`mfuser demo`: a bag through the node, over real topics."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from mfuser_ros import share
from mfuser_ros.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PACKED_BAG = "test/data/highway"
PACKED_ROI = (0, 0, 1280, 656)  # below it the vehicle's own bonnet hides the road
LINE_EVERY_S = 5.0
"""How often a line tells the state where no terminal shows a bar."""


def demo(
    bag: Annotated[
        Path | None, typer.Argument(metavar="[BAG]", help="Bag to play; none: the drive in the source checkout.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo_output"),
    topic: Annotated[str | None, typer.Option(help="Picture topic, where the bag has several.")] = None,
    roi: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            help="Part of the picture to look at (px), such as all but the bonnet.", metavar="X Y WIDTH HEIGHT"
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Name in models/ or path of a .safetensors.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    frames: Annotated[int | None, typer.Option(min=1, help="Play only the first N frames.")] = None,
    domain_id: Annotated[
        int | None,
        typer.Option(min=0, max=101, help="ROS domain of node and player; none: ROS_DOMAIN_ID, or a free one."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Play a bag into the node over ROS 2 topics and write a film, a bag of masks and a page.

    Example: mfuser demo test/data/highway --out demo_output
    """
    if bag is None:
        bag, roi = _packed_bag(), roi or PACKED_ROI
    _require_ros()
    from mfuser_ros.node.demo import DemoSettings, run_demo  # noqa: PLC0415  rclpy, plotly and PyAV take their time

    settings = DemoSettings(bag, out, topic, roi, model, device, frames, _domain(domain_id))
    with _Display(quiet) as display:
        files = run_demo(settings, display)
    if not quiet:
        for path in (files.film, files.masks, files.page):
            print(path)


def _packed_bag() -> Path:
    try:
        return share.find(PACKED_BAG)
    except ConfigurationError as error:
        raise InputError("the drive of the demo lies in the source checkout only: give the path of a BAG") from error


def _require_ros() -> None:
    try:
        import rclpy  # noqa: F401, PLC0415  optional: comes with ROS or with the [ros] extra
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"rclpy cannot be imported ({reason}): pip install 'mfuser_ros[ros]', or source a ROS 2 installation"
        ) from error


def _domain(asked: int | None) -> int:
    """The domain asked for, that of the environment, or one that other processes hardly use."""
    if asked is not None:
        return asked
    stated = os.environ.get("ROS_DOMAIN_ID", "")
    return int(stated) if stated.isdigit() else 1 + os.getpid() % 100


class _Display:
    """Shows progress: a bar with rate and time left on a terminal, plain lines elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._begun_s: dict[str, float] = {}
        self._told_s: dict[str, float] = {}

    def __enter__(self) -> _Display:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415  only where a bar is shown
            from rich.progress import (  # noqa: PLC0415  only where a bar is shown
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description:12}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of a stage are done."""
        if self._quiet:
            return
        now_s = time.monotonic()
        spent_s = now_s - self._begun_s.setdefault(stage, now_s)
        rate = f"{done / spent_s:.1f}/s" if spent_s > 0 and total > 1 else ""
        if self._bar is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(stage, total=total, rate="")
            self._bar.update(self._tasks[stage], completed=done, rate=rate)
        elif done == total or now_s - self._told_s.get(stage, -LINE_EVERY_S) >= LINE_EVERY_S:
            self._told_s[stage] = now_s
            left = f", {(total - done) * spent_s / done:.0f} s left" if rate and 0 < done < total else ""
            print(f"{stage}: {done}/{total} {rate}{left}".rstrip(), file=sys.stderr, flush=True)
