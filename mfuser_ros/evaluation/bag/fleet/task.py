"""One bag as a piece of work: what any process does with it, wherever it runs."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import fsspec
import torch

from mfuser_ros.bags.recording import Recording
from mfuser_ros.errors import InputError, MFuserError
from mfuser_ros.evaluation.bag.cameras import find_cameras
from mfuser_ros.evaluation.bag.run import BagResult, BagRun, key_of
from mfuser_ros.evaluation.bag.settings import BagSettings, Edge
from mfuser_ros.inference.segmenter import Segmenter

BAGS = "bags"
"""Folder below the results with one folder for each bag; what is done there is not done again."""


class Task(NamedTuple):
    """A bag to evaluate; plain data, so that it can be sent to another process."""

    bag: str  # path, or URL that fsspec opens, such as s3://archive/day_1
    settings: BagSettings
    edge: Edge


def expected_frames(bag: str, settings: BagSettings) -> int:
    """How many frames of a bag will be looked at, as far as it can be told at once; 0 where it cannot."""
    if settings.is_windowed or "://" in bag:
        return 0
    try:
        cameras = find_cameras(Path(bag), Recording(bag).topics(), settings)
        return sum(-(-camera.frames // settings.every) for camera in cameras)
    except InputError:
        return 0


class Done(NamedTuple):
    """What became of a task."""

    key: str  # hash of content and settings; empty where the bag could not be read
    error: str  # one line; empty where the bag was evaluated


def use_threads(settings: BagSettings) -> None:
    """Let torch and OpenCV use as many threads as the settings say; the last digits of scores depend on it."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
        cv2.setNumThreads(settings.threads)


def pinned(settings: BagSettings) -> BagSettings:
    """The settings with the number of threads that this process would use, so that all processes use as many."""
    threads = settings.threads or torch.get_num_threads()
    return settings.model_copy(update={"threads": threads})


def bag_folder(out: Path, key: str) -> Path:
    """Where the result of a bag lies."""
    return out / BAGS / key[:16]


def perform(
    task: Task,
    out: Path,
    segmenter: Segmenter,
    *,
    known: Collection[str] = (),
) -> Generator[None, None, Done]:
    """Evaluate a bag into its folder below `out`, unless that has been done; pick up what was begun.

    Two processes never work on one folder at once: the second waits, and finds the result.

    Args:
        task: the bag.
        out: folder for results.
        segmenter: the model that the settings ask for.
        known: names of folders of bags that are done elsewhere.

    Yields:
        None for every frame.
    """
    try:
        with local(task.bag) as path:
            key = key_of(Recording(path), task.settings, segmenter)
            folder = bag_folder(out, key)
            with _locked(folder):
                if folder.name not in known and BagResult.read(folder) is None:
                    run = BagRun(path, folder, task.settings, task.edge, segmenter, key, name=task.bag)
                    for _ in run:
                        yield
                    run.finish()
            return Done(key, "")
    except InputError as error:
        return Done("", str(error))


def finished(work: Generator[None, None, Done]) -> Done:
    """Do the work of `perform` to its end."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            done: Done = end.value
            return done


@contextmanager
def local(bag: str) -> Iterator[Path]:
    """The bag as a path: as it is, or copied from an object store for as long as it is needed.

    Raises:
        InputError: the store or the bag is not there; the text names it.
    """
    if "://" not in bag:
        yield Path(bag)
        return
    with tempfile.TemporaryDirectory(prefix="mfuser_fetch_") as folder:
        target = Path(folder) / bag.rstrip("/").rpartition("/")[2]
        try:
            store, path = fsspec.core.url_to_fs(bag)
            store.get(path, str(target), recursive=bool(store.isdir(path)))
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{bag}: cannot be fetched ({reason}): check the address and the credentials") from error
        yield target


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder alone; a killed process holds nothing."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder.with_suffix(".lock"), os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise MFuserError(f"{folder}: cannot be written ({error.strerror}): choose another --out") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            folder.with_suffix(".lock").unlink()
        os.close(lock)
