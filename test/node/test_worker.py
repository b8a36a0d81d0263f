"""The worker: newest picture, fair turns, orderly end."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from mfuser_ros.node.worker import Frame, Worker

DEADLINE_S = 10.0


class Log:
    """Records what is processed; holds every batch until it is let go."""

    def __init__(self, *cameras: str, batch_limit: int = 0) -> None:
        self.batches: list[dict[str, object]] = []
        self.taken = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.batch_limit = batch_limit or len(cameras)
        self.worker = Worker(cameras, self._process, lambda: self.batch_limit)
        self.worker.start()

    def _process(self, frames: Mapping[str, Frame]) -> None:
        self.batches.append({camera: frame.message for camera, frame in frames.items()})
        self.taken.release()
        assert self.let_go.acquire(timeout=DEADLINE_S)

    def put(self, camera: str, number: int) -> bool:
        return self.worker.put(camera, Frame(number, 0, 0))

    @property
    def done(self) -> list[tuple[str, object]]:
        """Camera and picture of all batches, in order."""
        return [entry for batch in self.batches for entry in batch.items()]

    def finish(self, count: int) -> None:
        """Let `count` more batches through and wait until the next is taken."""
        for _ in range(count):
            self.let_go.release()
            assert self.taken.acquire(timeout=DEADLINE_S)

    def stop(self) -> None:
        self.let_go.release()
        assert self.worker.stop(DEADLINE_S)


def test_newest_picture_takes_the_place_of_one_that_waits():
    log = Log("front")
    log.put("front", 1)
    assert log.taken.acquire(timeout=DEADLINE_S)

    assert [log.put("front", number) for number in (2, 3, 4)] == [False, True, True]
    log.finish(1)
    log.stop()

    assert log.done == [("front", 1), ("front", 4)]


def test_batch_holds_the_newest_picture_of_every_camera_that_has_one():
    log = Log("front", "left", "rear")
    log.put("front", 0)
    assert log.taken.acquire(timeout=DEADLINE_S)
    for number in range(1, 4):
        for camera in ("rear", "front"):  # left is dead
            log.put(camera, number)
    log.finish(1)
    log.put("left", 9)
    log.finish(1)
    log.stop()

    assert log.batches == [{"front": 0}, {"rear": 3, "front": 3}, {"left": 9}]


def test_no_camera_is_served_twice_before_another_where_a_batch_takes_few():
    log = Log("front", "left", "rear", batch_limit=2)
    log.put("front", 0)
    assert log.taken.acquire(timeout=DEADLINE_S)
    for number in range(1, 7):
        for camera in ("front", "left", "rear"):
            log.put(camera, number)
        log.finish(1)
    log.batch_limit = 1
    log.finish(1)
    log.stop()

    cameras = [camera for camera, _ in log.done]
    assert cameras == (["front", "left", "rear"] * 5)[: len(cameras)]
    assert [len(batch) for batch in log.batches] == [1, 2, 2, 2, 2, 2, 2, 1]
    # and each got the newest that was there
    assert [set(batch.values()) for batch in log.batches[1:7]] == [{number} for number in range(1, 7)]


def test_stop_throws_away_what_waits_and_ends_the_thread():
    log = Log("front")
    log.put("front", 1)
    assert log.taken.acquire(timeout=DEADLINE_S)
    log.put("front", 2)

    assert not log.worker.stop(0.01)  # one is in work
    log.stop()

    assert log.done == [("front", 1)]
    assert not any(thread.name == "mfuser-worker" for thread in threading.enumerate())


def test_worker_is_idle_when_nothing_waits_or_is_in_work():
    log = Log("front")
    assert log.worker.is_idle()
    log.put("front", 1)
    assert not log.worker.is_idle()
    assert log.taken.acquire(timeout=DEADLINE_S)
    assert not log.worker.is_idle()
    log.put("front", 2)
    log.worker.discard()
    log.stop()

    assert log.worker.is_idle()
    assert log.done == [("front", 1)]
