"""One thread that works on the newest picture of every camera, all that wait at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

Waiting = TypeVar("Waiting")


class Frame(NamedTuple):
    """A picture that waits for the network."""

    message: Any  # sensor_msgs/Image or CompressedImage
    stamp_ns: int | None  # of its header; None if that is no time
    arrival_ns: int  # on a steady clock


class Worker(Generic[Waiting]):
    """Keeps one picture for each camera, the newest, and hands those that wait to `process` as one batch.

    A camera that sends nothing is not waited for.

    Args:
        cameras: their names; where a batch cannot take all, they are served in turn.
        process: called in the worker's thread with the pictures by camera; must not raise.
        batch_limit: most pictures that a batch may have now.
        name: of the thread.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        process: Callable[[Mapping[str, Waiting]], None],
        batch_limit: Callable[[], int],
        name: str = "mfuser-worker",
    ) -> None:
        self._process = process
        self._batch_limit = batch_limit
        self._turns = list(cameras)
        self._waiting: dict[str, Waiting] = {}
        self._changed = threading.Condition()
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """End after the batch in work, throw away what waits; returns whether the thread has ended in time."""
        with self._changed:
            self._stopping = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def put(self, camera: str, picture: Waiting) -> bool:
        """Leave a picture; returns whether it took the place of one that was still waiting."""
        with self._changed:
            replaced = camera in self._waiting
            self._waiting[camera] = picture
            self._changed.notify()
            return replaced

    def discard(self) -> None:
        """Throw away what waits."""
        with self._changed:
            self._waiting.clear()

    def is_idle(self) -> bool:
        """Whether no picture waits or is in work."""
        with self._changed:
            return not self._busy and not self._waiting

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                batch = self._take()
                self._busy = True
            self._process(batch)
            del batch  # a picture is megabytes

    def _take(self) -> dict[str, Waiting]:
        cameras = [name for name in self._turns if name in self._waiting][: max(1, self._batch_limit())]
        for name in cameras:
            self._turns.remove(name)  # and to the end of the queue: nobody is served twice before another
            self._turns.append(name)
        return {name: self._waiting.pop(name) for name in cameras}
