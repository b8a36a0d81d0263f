"""The pictures of a bag as messages that are ready to be published, each with the moment when it is due."""

from __future__ import annotations

import math
import queue
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mfuser_ros.bags.read import COMPRESSED_IMAGE, Frame
from mfuser_ros.bags.recording import Damage, Recorded, Recording
from mfuser_ros.errors import InputError
from mfuser_ros.evaluation.bag.cameras import find_cameras
from mfuser_ros.evaluation.bag.settings import BagSettings, Pose
from mfuser_ros.node import exchange
from mfuser_ros.node.parameters import RESERVED_NAMES

T = TypeVar("T")

MOST_CAMERAS = 8
"""That one node takes."""

AHEAD = 16
"""Messages that are made ready before they are due."""

BUFFERED = 100
"""Pictures of a camera that are played again and again at a fixed rate, as many as ros2_benchmark keeps."""

BUFFERED_BYTES = 256_000_000
"""Most that the pictures of all cameras may hold."""


class Cue(NamedTuple):
    """One picture to be played; its stamp is written when it is sent.

    Attributes:
        camera: name of the camera.
        due_s: after the first picture of the run, seconds.
        image: rclpy message.
        info: rclpy CameraInfo that goes with it, if the bag has one.
    """

    camera: str
    due_s: float
    image: Any  # rclpy's CompressedImage or Image
    info: Any | None


@dataclass(frozen=True)
class TapeCamera:
    """One camera of the bag, and how the node shall call it.

    Attributes:
        name: of the node's parameters and topics.
        image_topic: as recorded, without `/compressed`.
        compressed: whether its pictures are CompressedImages.
        pose: x, y, z, roll, pitch, yaw; None: unknown.
        frames: how many the bag says there are; 0 where it does not say.
    """

    name: str
    image_topic: str
    compressed: bool
    pose: Pose | None
    frames: int


class Tape:
    """A bag that can be played.

    Attributes:
        cameras: to play, in the order of their topics.
        damage: of the bag, as far as it was read.
    """

    def __init__(self, path: Path, settings: BagSettings) -> None:
        """Look for the cameras.

        Raises:
            InputError: no bag, no such topic, no pictures, or more cameras than one node takes.
        """
        self._path, self._settings = path, settings
        recording = Recording(path)
        topics = recording.topics()
        found = find_cameras(path, topics, settings)
        if len(found) > MOST_CAMERAS:
            raise InputError(f"{path}: {len(found)} cameras: one node takes {MOST_CAMERAS}: name them by --topic")
        kinds = {topic.name: topic.kind for topic in topics}
        names = _names([camera.topic.removesuffix("/compressed") for camera in found], path)
        self._found = dict(zip(names, found, strict=True))
        self.cameras = [
            TapeCamera(
                name, camera.topic.removesuffix("/compressed"), kinds[camera.topic] == COMPRESSED_IMAGE,
                camera.pose, camera.frames,
            )
            for name, camera in self._found.items()
        ]  # fmt: skip
        self.damage: Damage = recording.damage
        self._loaded: dict[str, list[Cue]] = {}

    @property
    def pictures(self) -> int:
        """How many `cues` will give at most; 0 where the bag does not say."""
        return sum(camera.frames for camera in self.cameras)

    def cues(self) -> Iterator[Cue]:
        """Pictures in recorded order, due as they were recorded; a thread reads ahead.

        Raises:
            InputError: a topic has two types.
        """
        yield from ahead(self._read(), AHEAD)

    def firsts(self) -> list[Cue]:
        """The first picture of each camera.

        Raises:
            InputError: a camera has none.
        """
        found: dict[str, Cue] = {}
        for cue in self._read():
            found.setdefault(cue.camera, cue)
            if len(found) == len(self.cameras):
                break
        missing = [self._found[camera.name].topic for camera in self.cameras if camera.name not in found]
        if missing:
            raise InputError(
                f"{self._path}: no pictures on {missing[0]} in the time that is asked for: record it again"
            )
        return list(found.values())

    def loop(self, rate_hz: float, pictures: int) -> Iterator[Cue]:
        """The first pictures of every camera again and again, all cameras at the same moments."""
        buffers = self._buffers()
        for number in range(pictures):
            for buffer in buffers:
                yield buffer[number % len(buffer)]._replace(due_s=number / rate_hz)

    def _buffers(self) -> list[list[Cue]]:
        if not self._loaded:
            held = 0
            for cue in self._read():
                buffer = self._loaded.setdefault(cue.camera, [])
                if len(buffer) < BUFFERED:
                    buffer.append(cue)
                    held += len(cue.image.data)
                full = all(len(buffer) == BUFFERED for buffer in self._loaded.values())
                if len(self._loaded) == len(self.cameras) and (full or held >= BUFFERED_BYTES):
                    break
        return list(self._loaded.values())

    def _read(self) -> Iterator[Cue]:
        with Recording(self._path) as recording:
            self.damage = recording.damage
            names = {camera.topic: name for name, camera in self._found.items()}
            infos = {topic: self._first(topic) for topic in self._info_topics()}
            first_stamp_ns: dict[str, int] = {}
            begin_ns = None
            stop_s = math.inf if self._settings.stop_s is None else self._settings.stop_s
            for recorded in recording.messages([*names, *infos]):
                if recorded.topic in infos:
                    infos[recorded.topic] = recorded.message
                    continue
                frame = _frame(recorded)
                time_s = (frame.stamp_ns - first_stamp_ns.setdefault(recorded.topic, frame.stamp_ns)) / 1e9
                if self._settings.start_s <= time_s < stop_s and recorded.index % self._settings.every == 0:
                    begin_ns = recorded.time_ns if begin_ns is None else begin_ns
                    name = names[recorded.topic]
                    info = infos.get(self._found[name].info_topic or "")
                    yield Cue(
                        name,
                        (recorded.time_ns - begin_ns) / 1e9,
                        exchange.image_message(frame),
                        None if info is None else exchange.info_message(frame, info),
                    )

    def _info_topics(self) -> list[str]:
        return sorted({camera.info_topic for camera in self._found.values() if camera.info_topic is not None})

    def _first(self, topic: str) -> Any | None:  # Any: rosbags makes the class at run time
        """The first message of a topic, for the pictures before it."""
        with Recording(self._path) as recording:
            return next((recorded.message for recorded in recording.messages([topic])), None)


def ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """Pass `items` on while a thread takes up to `count` of them in advance; an error of theirs comes through."""
    waiting: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(count)
    given_up = threading.Event()

    def put(entry: tuple[T | None, BaseException | None, bool]) -> bool:
        while not given_up.is_set():
            try:
                waiting.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
        except BaseException as error:
            put((None, error, True))
        else:
            put((None, None, True))

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, is_last = waiting.get()
            if error is not None:
                raise error
            if is_last:
                return
            yield item  # type: ignore[misc]  # only the last entry has none
    finally:
        given_up.set()
        thread.join()


def _frame(recorded: Recorded) -> Frame:
    header = recorded.message.header
    stamp_ns = header.stamp.sec * 10**9 + header.stamp.nanosec
    return Frame(recorded.index, stamp_ns, header.frame_id, recorded.kind, recorded.message, None)


def _names(topics: list[str], path: Path) -> list[str]:
    """Names for cameras by their topics: /sensors/front/image_raw is `front`."""
    names: list[str] = []
    for topic in topics:
        if topics.count(topic) > 1:
            raise InputError(f"{path}: {topic} is recorded raw and compressed: name one of both with --topic")
        parts = topic.strip("/").split("/")
        stem = re.sub(r"[\W_]+", "_", parts[-2] if len(parts) > 1 else "camera", flags=re.ASCII).strip("_")
        stem = f"camera_{stem}" if stem in RESERVED_NAMES or not stem[:1].isalpha() else stem
        candidates = (stem, *(f"{stem}_{number}" for number in range(2, MOST_CAMERAS + 1)))
        names.append(next(name for name in candidates if name not in names))
    return names
