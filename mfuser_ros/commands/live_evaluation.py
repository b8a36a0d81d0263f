"""What `mfuser evaluate BAG --live` does. Imports what takes time; the verb imports it when it is called."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from mfuser_ros.commands.limits import tell_limits
from mfuser_ros.commands.ros import choose_domain
from mfuser_ros.commands.stages import StageDisplay
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.evaluation.bag.settings import BagSettings
from mfuser_ros.evaluation.limits import Limit
from mfuser_ros.evaluation.report.page import write_report
from mfuser_ros.evaluation.summary import write_summary
from mfuser_ros.node.live import measure_live
from mfuser_ros.node.live_report import COLUMNS, live_report, rows_of
from mfuser_ros.node.live_summary import check_limits, live_notes, live_summary, write_frames
from mfuser_ros.node.tape import Tape


def evaluate_live(
    bags: Sequence[str], settings: BagSettings, *, peak: bool, limits: Sequence[Limit], out: Path | None, quiet: bool
) -> int:
    """Play a bag to the real node, print what a vehicle would see, and write the results into `out`, if given.

    Returns:
        The exit code: 0, 1 where a limit is broken, 2 where the bag is damaged.

    Raises:
        ConfigurationError: not one bag, or a limit on what there is not.
        InputError: the bag cannot be read.
        NodeError: the node does not start, dies, or gives no mask.
    """
    if len(bags) != 1:
        raise ConfigurationError(f"--live and {len(bags)} inputs: one bag is played at a time: give one")
    check_limits(limits, [camera.name for camera in Tape(Path(bags[0]), settings).cameras])
    with ExitStack() as stack:
        logs = (out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mfuser_live_")))) / "log"
        stack.enter_context(_terminated_cleanly())
        with StageDisplay(quiet) as display:
            live = measure_live(
                Path(bags[0]), settings, logs=logs, domain_id=choose_domain(None), peak=peak, progress=display
            )
    summary = live_summary(live, source=bags[0], settings=settings, limits=limits)
    if not quiet:
        _print_table(summary)
    for note in live_notes(summary["live"]):
        print(f"mfuser: {note}", file=sys.stderr)
    if out is not None:
        write_frames(live.played, out)
        page = write_report(live_report(summary, live.played), out)
        write_summary(summary, out)
        if not quiet:
            print(page)
    for line in live.damage.named:
        print(f"mfuser: {bags[0]}: {line}", file=sys.stderr)
    holds = tell_limits(summary)
    return 2 if live.damage else 0 if holds else 1


@contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that the node is not left behind."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_table(summary: dict[str, Any]) -> None:  # JSON
    table = Table(title=f"{summary['input']}, live, {summary['model']['name']}")
    runs = rows_of(summary["live"])
    for heading in ("", *(run[0] for run in runs)):
        table.add_column(heading, justify="right" if heading else "left")
    for figure in zip(COLUMNS[1:], *(run[1:] for run in runs), strict=True):
        table.add_row(*figure)
    Console().print(table)
