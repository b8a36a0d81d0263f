"""Read bags: which topics, and the frames of a camera with header stamp and CameraInfo."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError
from rosbags.typesys import Stores, get_typestore

from mfuser_ros.errors import InputError

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


@dataclass(frozen=True)
class Topic:
    """One topic of a bag."""

    name: str
    kind: str  # type, such as sensor_msgs/msg/Image
    messages: int


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a bag, as recorded; `mfuser_ros.node.images.to_rgb` (needs no ROS) makes an array of its message.

    Attributes:
        index: 0 for the first frame of its topic.
        stamp_ns: header stamp, nanoseconds.
        frame_id: optical frame of the camera as the header states it.
        kind: IMAGE or COMPRESSED_IMAGE.
        message: the message with the fields of its definition; its `data` is a read-only uint8 array.
        info: newest CameraInfo at this frame; the first of the bag where none came before; None without any.
    """

    index: int
    stamp_ns: int
    frame_id: str
    kind: str
    message: Any  # rosbags makes the class from the message definition in the bag
    info: Any | None  # likewise


class BagReader:
    """An open bag: a folder with metadata.yaml, or a bare .mcap or .db3 file.

    ```python
    with BagReader("drive") as bag:
        for frame in bag.frames(bag.image_topic()):
            print(frame.stamp_ns, frame.message.format)
    ```
    """

    def __init__(self, path: str | Path) -> None:
        """Name the bag; it is opened when the `with` block is entered."""
        self.path = Path(path)

    def __enter__(self) -> BagReader:
        """Open the bag.

        Raises:
            InputError: it is missing, truncated, or no bag; one line with path and cause.
        """
        with self._clear_errors():
            self._reader = AnyReader([self.path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
            self._reader.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reader.close()

    def topics(self) -> list[Topic]:
        """Topics in the order of their names; a topic recorded with two types says both."""
        return [
            Topic(
                name, info.msgtype or " and ".join(sorted({entry.msgtype for entry in info.connections})), info.msgcount
            )
            for name, info in self._reader.topics.items()
        ]

    def span_ns(self) -> tuple[int, int]:
        """Time of the first and of the last message as recorded, nanoseconds; (0, 0) for an empty bag."""
        if not self._reader.message_count:
            return 0, 0
        return self._reader.start_time, self._reader.end_time - 1  # rosbags counts the end one past the last message

    def image_topic(self, wanted: str | None = None) -> str:
        """`wanted` if the bag has such pictures; without it the only picture topic of the bag.

        Raises:
            InputError: no such topic, no picture topic, or several of them; the text lists what there is.
        """
        have = [entry.name for entry in self.topics() if entry.kind in (IMAGE, COMPRESSED_IMAGE)]
        listed = ", ".join(have) or "none"
        if wanted is not None:
            if wanted not in have:
                raise InputError(f"{self.path}: no picture topic {wanted}: topics with pictures: {listed}")
            return wanted
        if len(have) != 1:
            raise InputError(f"{self.path}: {len(have)} picture topics ({listed}): name one with --topic")
        return have[0]

    def info_topic(self, image_topic: str) -> str | None:
        """The camera_info topic beside `image_topic`, if any: /front/camera_info for /front/image_raw/compressed."""
        base = image_topic.removesuffix("/compressed").rpartition("/")[0]
        name = f"{base}/camera_info"
        return name if any(entry.name == name and entry.kind == CAMERA_INFO for entry in self.topics()) else None

    def count(self, topic: str) -> int:
        """Number of messages of `topic`; 0 if the bag lacks it."""
        return sum(entry.messages for entry in self.topics() if entry.name == topic)

    def frames(self, image_topic: str) -> Iterator[Frame]:
        """Pictures of `image_topic` in recorded order, each with the newest CameraInfo.

        Raises:
            InputError: no such topic, two types on it, or the bag breaks off on the way; one line with path and cause.
        """
        images = self._connections(image_topic)
        info_topic = self.info_topic(image_topic)
        infos = self._connections(info_topic) if info_topic else []
        info = self._first(infos)
        index = 0
        with self._clear_errors():
            for connection, _, raw in self._reader.messages(connections=[*infos, *images]):
                message: Any = self._reader.deserialize(raw, connection.msgtype)  # Any: class made at run time
                if connection.msgtype == CAMERA_INFO:
                    info = message
                    continue
                stamp = message.header.stamp
                stamp_ns = stamp.sec * 10**9 + stamp.nanosec
                yield Frame(index, stamp_ns, message.header.frame_id, connection.msgtype, message, info)
                index += 1

    def messages(self, topic: str) -> Iterator[Any]:
        """Messages of `topic` as rosbags decodes them, in recorded order; fields as in the message definition.

        Raises:
            InputError: no such topic, two types on it, or the bag breaks off on the way.
        """
        connections = self._connections(topic)
        with self._clear_errors():
            for connection, _, raw in self._reader.messages(connections=connections):
                yield self._reader.deserialize(raw, connection.msgtype)

    def offered_qos(self, topic: str) -> list[Any]:
        """QoS profiles that the recorded publishers of `topic` offered (rosbags.interfaces.Qos)."""
        return [
            profile for entry in self._connections(topic) for profile in getattr(entry.ext, "offered_qos_profiles", [])
        ]

    def _first(self, connections: list[Connection]) -> Any | None:
        if not connections:
            return None
        with self._clear_errors():
            for connection, _, raw in self._reader.messages(connections=connections):
                return self._reader.deserialize(raw, connection.msgtype)
        return None

    def _connections(self, topic: str) -> list[Connection]:
        found = [entry for entry in self._reader.connections if entry.topic == topic]
        kinds = sorted({entry.msgtype for entry in found})
        if not found:
            listed = ", ".join(entry.name for entry in self.topics()) or "none"
            raise InputError(f"{self.path}: no topic {topic}: topics are {listed}")
        if len(kinds) > 1:
            raise InputError(f"{self.path}: topic {topic} has two types ({', '.join(kinds)}): record it again with one")
        return found

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            missing = "no such file or folder" if not self.path.exists() else "folder has no metadata.yaml"
            mend = "give a bag" if not self.path.exists() else "name the .mcap or .db3 file in it instead"
            raise InputError(f"{self.path}: {missing}: {mend}") from error
        except (*_DAMAGE, OSError) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{self.path}: damaged or no bag ({cause}): record or copy it again") from error


_DAMAGE = (
    AnyReaderError,
    ReaderError,
    apsw.Error,
    struct.error,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)
"""What rosbags lets through when bytes are wrong, seen by cutting and overwriting bags at random (test_damage.py)."""
