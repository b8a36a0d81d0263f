"""Progress of work in several stages: bars with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S = 5.0
"""How often a line tells the state where no terminal shows a bar."""


class StageDisplay:
    """Shows progress: a bar with rate and time left on a terminal, plain lines elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._begun_s: dict[str, float] = {}
        self._told_s: dict[str, float] = {}

    def __enter__(self) -> StageDisplay:
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
        """Show that `done` of `total` steps of a stage are done; a total of 0 is not known."""
        if self._quiet:
            return
        now_s = time.monotonic()
        spent_s = now_s - self._begun_s.setdefault(stage, now_s)
        rate = f"{done / spent_s:.1f}/s" if spent_s > 0 and total != 1 else ""
        if self._bar is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(stage, total=total or None, rate="")
            self._bar.update(self._tasks[stage], completed=done, rate=rate)
        elif done == total or now_s - self._told_s.get(stage, -LINE_EVERY_S) >= LINE_EVERY_S:
            self._told_s[stage] = now_s
            left = f", {(total - done) * spent_s / done:.0f} s left" if rate and 0 < done < total else ""
            of = f"/{total}" if total else ""
            print(f"{stage}: {done}{of} {rate}{left}".rstrip(), file=sys.stderr, flush=True)
