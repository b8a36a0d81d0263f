"""Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

LINE_EVERY_S = 10.0


def track(items: Iterable[T], *, total: int | None, what: str, quiet: bool = False) -> Iterator[T]:
    """Pass `items` on and show on stderr how far the work on them is.

    Args:
        items: what is worked on.
        total: how many there are; None where that is not known.
        what: what one of them is, in the plural, such as "frames".
        quiet: show nothing.
    """
    if quiet:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, total, what)
    else:
        yield from _lines(items, total, what)


def _bar(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    from rich.console import Console  # noqa: PLC0415  rich is not needed where no terminal is
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total, rate="")
        start = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            progress.update(task, advance=1, rate=f"{done / (time.monotonic() - start):.1f}/s")


def _lines(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_EVERY_S:
            last = now
            of = f" of {total}" if total else ""
            print(f"{done}{of} {what}, {done / (now - start):.1f}/s", file=sys.stderr, flush=True)
