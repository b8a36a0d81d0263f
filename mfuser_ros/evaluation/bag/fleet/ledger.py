"""Which bags are waiting, which are in work and which are done, when workers may die at any moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mfuser_ros.errors import WorkerError
from mfuser_ros.evaluation.bag.fleet.task import Done

TRIES = 3
"""A bag that has taken so many workers with it is not tried again."""


class Ledger:
    """Hands out bags by their place in the list, and takes results; each counts once."""

    def __init__(self, count: int) -> None:
        """So many bags wait."""
        self._waiting = deque(range(count))
        self._tries = [0] * count
        self._done: dict[int, Done] = {}

    @property
    def is_over(self) -> bool:
        """Whether every bag is done."""
        return len(self._done) == len(self._tries)

    def next(self) -> int | None:
        """A bag to work on; None where none is waiting."""
        if not self._waiting:
            return None
        place = self._waiting.popleft()
        self._tries[place] += 1
        return place

    def finish(self, place: int, done: Done) -> None:
        """A bag is done; a second result for it changes nothing."""
        self._done.setdefault(place, done)

    def lost(self, place: int, bag: str) -> None:
        """The worker of a bag died: the bag waits again.

        Raises:
            WorkerError: it was not the first worker that this bag has cost.
        """
        if self._tries[place] >= TRIES:
            raise WorkerError(f"{bag}: {TRIES} workers died over it: evaluate it alone to see why (memory?)")
        self._waiting.append(place)

    def results(self) -> Sequence[Done]:
        """What became of the bags, in the order of the list."""
        return [self._done[place] for place in range(len(self._tries))]
