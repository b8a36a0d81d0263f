"""Worker processes on this machine, each with the model, one bag at a time; one that dies is replaced."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mfuser_ros.errors import MFuserError
from mfuser_ros.evaluation.bag.fleet.ledger import Ledger
from mfuser_ros.evaluation.bag.fleet.task import Done, Task, perform, use_threads
from mfuser_ros.evaluation.bag.run import load_segmenter
from mfuser_ros.evaluation.bag.settings import BagSettings

_SPAWN = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, out: Path, settings: BagSettings) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self.process: BaseProcess = _SPAWN.Process(target=serve, args=(theirs, out, settings), daemon=True)
        self.process.start()
        theirs.close()
        self.place: int | None = None  # of the bag in work

    def give(self, place: int, task: Task) -> None:
        """Let it work on a bag."""
        self.place = place
        self.pipe.send(task)

    def stop(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def run_here(tasks: Sequence[Task], out: Path, settings: BagSettings) -> Generator[None, None, Sequence[Done]]:
    """Evaluate bags in this process, one after the other; yields None for every frame; see `run_pool`."""
    use_threads(settings)
    segmenter = load_segmenter(settings)
    results: list[Done] = []
    for task in tasks:
        done = yield from perform(task, out, segmenter)
        results.append(done)
    return results


def run_pool(
    tasks: Sequence[Task],
    out: Path,
    settings: BagSettings,
    *,
    workers: int,
    started: Callable[[int], None] = lambda _pid: None,
) -> Generator[None, None, Sequence[Done]]:
    """Evaluate bags with so many processes; the bags of a process that dies are done again by another.

    Args:
        tasks: the bags.
        out: folder for results.
        settings: of all of them.
        workers: number of processes.
        started: told the process id of every worker.

    Yields:
        None for every frame.

    Returns:
        What became of the bags, in their order.

    Raises:
        MFuserError: the model or a setting cannot be used, or a bag kills every worker that touches it.
    """
    ledger = Ledger(len(tasks))
    crew: list[_Worker] = []
    try:
        while not ledger.is_over:
            while len(crew) < workers and _hire(ledger, tasks, crew, out, settings):
                started(crew[-1].process.pid or 0)
            for ready in wait([worker.pipe for worker in crew]):
                worker = next(each for each in crew if each.pipe is ready)
                if _hear(worker, ledger, tasks, crew):
                    yield
        return ledger.results()
    finally:
        for worker in crew:
            worker.stop()


def _hire(ledger: Ledger, tasks: Sequence[Task], crew: list[_Worker], out: Path, settings: BagSettings) -> bool:
    """Start a worker for a waiting bag, if there is one."""
    place = ledger.next()
    if place is None:
        return False
    worker = _Worker(out, settings)
    worker.give(place, tasks[place])
    crew.append(worker)
    return True


def _hear(worker: _Worker, ledger: Ledger, tasks: Sequence[Task], crew: list[_Worker]) -> bool:
    """Take what a worker says; whether it is a frame."""
    assert worker.place is not None  # every worker has a bag
    try:
        said: Any = worker.pipe.recv()
    except (EOFError, OSError):  # it died
        worker.stop()
        crew.remove(worker)
        ledger.lost(worker.place, tasks[worker.place].bag)
        return False
    if isinstance(said, MFuserError):
        raise said
    if said is None:
        return True
    ledger.finish(worker.place, said)
    place = ledger.next()
    if place is None:
        worker.stop()
        crew.remove(worker)
    else:
        worker.give(place, tasks[place])
    return False


def serve(pipe: Connection, out: Path, settings: BagSettings) -> None:
    """What a worker does: say None for each frame and Done for each bag that comes through the pipe."""
    try:
        use_threads(settings)
        segmenter = load_segmenter(settings)
        while True:
            task: Task = pipe.recv()
            pipe.send(_through(pipe, perform(task, out, segmenter)))
    except MFuserError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):  # nobody wants more
        return


def _through(pipe: Connection, work: Generator[None, None, Done]) -> Done:
    """Do the work, and say None for each frame."""
    while True:
        try:
            pipe.send(next(work))
        except StopIteration as end:
            done: Done = end.value
            return done
