"""Many bags on a Ray cluster: one actor for each GPU, or for some CPU cores; an actor that dies is replaced.

Bags come from a file system that all machines see, or by URL from an object store (fsspec). What an actor has measured
travels back as files, and the one driver writes them, so nothing is counted twice.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from mfuser_ros.errors import ConfigurationError, MFuserError, WorkerError
from mfuser_ros.evaluation.bag.fleet.ledger import Ledger
from mfuser_ros.evaluation.bag.fleet.task import BAGS, Done, Task, bag_folder, finished, perform, use_threads
from mfuser_ros.evaluation.bag.run import RESULT, BagResult, load_segmenter
from mfuser_ros.evaluation.bag.settings import BagSettings
from mfuser_ros.inference.segmenter import Segmenter

try:
    import ray
    from ray.exceptions import RayActorError, RayTaskError
except ImportError as _error:
    raise ConfigurationError(f"--ray needs ray ({_error}): pip install 'mfuser_ros[ray]'") from _error

Files = dict[str, bytes]


class BagWorker:
    """What runs on a machine of the cluster: the model, and one bag after the other."""

    def __init__(self, settings: BagSettings) -> None:
        """The model is loaded for the first bag: what is wrong with it then comes back like any fault of a bag."""
        self._settings = settings
        self._segmenter: Segmenter | None = None

    def evaluate(self, task: Task, known: frozenset[str]) -> tuple[Done, Files]:
        """Evaluate a bag; the files of its result, none where the driver has them already.

        Args:
            task: the bag.
            known: names of folders that the driver has.
        """
        if self._segmenter is None:
            use_threads(self._settings)
            self._segmenter = load_segmenter(self._settings)
        with tempfile.TemporaryDirectory(prefix="mfuser_actor_") as name:
            out = Path(name)
            done = finished(perform(task, out, self._segmenter, known=known))
            folder = bag_folder(out, done.key)
            files = [file for file in folder.rglob("*") if file.is_file()] if done.key else []
            return done, {str(file.relative_to(folder)): file.read_bytes() for file in files}


def run_cluster(
    tasks: Sequence[Task],
    out: Path,
    settings: BagSettings,
    *,
    address: str,
    workers: int | None = None,
) -> Generator[None, None, Sequence[Done]]:
    """Evaluate bags on a cluster; the bags of an actor that dies are done again by another.

    Args:
        tasks: the bags.
        out: folder for results, on this machine.
        settings: of all of them.
        address: of the cluster, as ray.init takes it: auto, HOST:PORT, ray://HOST:PORT; local starts one here.
        workers: number of actors; None: as many as the GPUs, or the CPU cores by threads, of the cluster allow.

    Yields:
        None for every frame of a bag that is done.

    Returns:
        What became of the bags, in their order.

    Raises:
        WorkerError: the cluster does not answer, or a bag kills every actor that touches it.
        MFuserError: the model or a setting cannot be used.
    """
    if not ray.is_initialized():
        try:
            ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise WorkerError(f"--ray {address}: no cluster answers ({reason}): start one with ray start") from error
    need = _need(settings)
    actor_class = ray.remote(**need, max_restarts=0)(BagWorker)
    size = workers or _room(need)
    ledger = Ledger(len(tasks))
    working: dict[Any, tuple[Any, int]] = {}  # what is awaited -> actor, place of the bag
    try:
        while not ledger.is_over:
            while len(working) < size and (place := ledger.next()) is not None:
                _start(actor_class.remote(settings), place, tasks, out, working)
            (ready, *_), _ = ray.wait(list(working), num_returns=1)
            actor, place = working.pop(ready)
            try:
                done, files = ray.get(ready)
            except RayActorError:
                ledger.lost(place, tasks[place].bag)
                continue
            except RayTaskError as error:
                raise error.cause if isinstance(error.cause, MFuserError) else error from error
            _take(done, files, out)
            ledger.finish(place, done)
            yield from [None] * _frames(out, done)
            following = ledger.next()
            if following is None:
                ray.kill(actor)
            else:
                _start(actor, following, tasks, out, working)
        return ledger.results()
    finally:
        for actor, _ in working.values():
            ray.kill(actor)


def _start(actor: Any, place: int, tasks: Sequence[Task], out: Path, working: dict[Any, tuple[Any, int]]) -> None:
    known = frozenset(file.parent.name for file in (out / BAGS).glob(f"*/{RESULT}"))
    working[actor.evaluate.remote(tasks[place], known)] = (actor, place)


def _take(done: Done, files: Files, out: Path) -> None:
    """Put the files of a result into its place, all at once, unless it is there."""
    if not files or BagResult.read(bag_folder(out, done.key)) is not None:
        return
    folder = bag_folder(out, done.key)
    arriving = folder.with_suffix(".arriving")
    shutil.rmtree(arriving, ignore_errors=True)
    for name, content in files.items():
        (arriving / name).parent.mkdir(parents=True, exist_ok=True)
        (arriving / name).write_bytes(content)
    shutil.rmtree(folder, ignore_errors=True)
    arriving.rename(folder)


def _frames(out: Path, done: Done) -> int:
    result = BagResult.read(bag_folder(out, done.key)) if done.key else None
    return 0 if result is None else result.frames


def _need(settings: BagSettings) -> dict[str, float]:
    """What one actor takes of the cluster."""
    on_gpu = settings.device.startswith("cuda") or (settings.device == "auto" and ray.cluster_resources().get("GPU", 0))
    return {"num_gpus": 1, "num_cpus": 1} if on_gpu else {"num_cpus": float(settings.threads or 1)}


def _room(need: dict[str, float]) -> int:
    """How many actors the cluster has room for."""
    have = ray.cluster_resources()
    name, key = ("GPU", "num_gpus") if "num_gpus" in need else ("CPU", "num_cpus")
    return max(1, int(have.get(name, 1) // need[key]))
