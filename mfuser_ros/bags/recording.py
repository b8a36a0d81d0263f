"""Read a bag as far as it can be read: message by message in recorded order, damage counted and named.

`BagReader` refuses a bag that is not whole. A `Recording` goes on: past a chunk of an MCAP file whose checksum is
wrong, up to the last whole record of one that was cut off, as far as SQLite reads a damaged database, over missing
files of a split bag. Types are taken by name from the message definitions of ROS 2 Jazzy, so a topic of an unknown
type never keeps the known ones from being read.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
import zstandard
from rosbags.typesys import Stores, get_typestore

from mfuser_ros.bags.read import Topic
from mfuser_ros.bags.storage import DamageError, Storage, StoredMessage, open_storage
from mfuser_ros.errors import InputError

NAMED = 50
"""How many pieces of damage are kept by name; the rest is counted."""

DATA_SUFFIXES = (".mcap", ".db3")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SUFFIX = ".zstd"


@dataclass
class Damage:
    """What could not be read.

    Attributes:
        incomplete: part of the bag is missing, so that nobody knows how many messages were lost.
        messages: messages that were there and could not be used.
        named: one line for each piece of damage, at most `NAMED`.
    """

    incomplete: bool = False
    messages: int = 0
    named: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.incomplete or bool(self.messages)

    def lost(self, text: str) -> None:
        """Note that a part of the bag is missing."""
        self.incomplete = True
        self._name(text)

    def corrupt(self, text: str) -> None:
        """Count a message that cannot be used."""
        self.messages += 1
        self._name(text)

    def _name(self, text: str) -> None:
        if len(self.named) < NAMED and text not in self.named:
            self.named.append(text)


@dataclass(frozen=True, eq=False)
class Recorded:
    """One message of a recording.

    Attributes:
        topic: its topic.
        kind: type, such as sensor_msgs/msg/Image.
        index: 0 for the first message of the topic, messages that cannot be used counted too.
        time_ns: when it was recorded, nanoseconds.
        message: with the fields of its definition.
    """

    topic: str
    kind: str
    index: int
    time_ns: int
    message: Any  # rosbags makes the class from the message definition


class Recording:
    """A bag, or what is left of it: a folder, with or without metadata.yaml, or a bare .mcap or .db3 file.

    Attributes:
        path: of the bag.
        files: its data files, in recorded order.
        damage: what was found so far; complete once all messages have been read.
    """

    def __init__(self, path: str | Path) -> None:
        """Look for the files of the bag.

        Raises:
            InputError: nothing is there, or nothing that could be a bag; one line with path and cause.
        """
        self.path = Path(path)
        self.damage = Damage()
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._counts: dict[str, int] = {}
        self._topics: list[Topic] | None = None
        self.files = self._find_files()
        self._unpacked: dict[Path, Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def topics(self) -> list[Topic]:
        """Topics in the order of their names, with the number of messages as the bag states it, 0 where it does not.

        Raises:
            InputError: not one file of the bag can be read.
        """
        if self._topics is not None:
            return self._topics
        kinds: dict[str, set[str]] = {}
        counts: Counter[str] = Counter()
        causes = []
        for file in self.files:
            try:
                for entry in self._open(file).topics():
                    kinds.setdefault(entry.name, set()).add(entry.kind)
                    counts[entry.name] += entry.messages
            except DamageError as error:
                causes.append(str(error))
                self.damage.lost(f"{file.name}: {error}")
        if len(causes) == len(self.files):
            raise InputError(f"{self.path}: damaged or no bag ({causes[0]}): record or copy it again")
        stated = self._counts or counts
        self._topics = [Topic(name, " and ".join(sorted(kinds[name])), stated.get(name, 0)) for name in sorted(kinds)]
        return self._topics

    def messages(self, topics: Collection[str]) -> Iterator[Recorded]:
        """Messages of `topics` in recorded order; those that do not decode are counted in `damage` and left out.

        Raises:
            InputError: one of the topics has two types.
        """
        for entry in self.topics():
            if entry.name in topics and " and " in entry.kind:
                kinds = entry.kind.replace(" and ", ", ")
                raise InputError(f"{self.path}: topic {entry.name} has two types ({kinds}): record it again with one")
        index: Counter[str] = Counter()
        for file in self.files:
            try:
                for stored in self._open(file).messages(topics):
                    if isinstance(stored, DamageError):
                        self.damage.lost(f"{file.name}: {stored}")
                        continue
                    number = index[stored.topic]
                    index[stored.topic] += 1
                    recorded = self._decoded(stored, number)
                    if recorded is not None:
                        yield recorded
            except DamageError as error:
                self.damage.lost(f"{file.name}: {error}")

    def _decoded(self, stored: StoredMessage, number: int) -> Recorded | None:
        data = stored.data
        try:
            if data.startswith(_ZSTD_MAGIC):  # CDR begins with two bytes 00 0x
                data = zstandard.decompress(data)
            message: Any = self._types.deserialize_cdr(data, stored.kind)  # Any: class made at run time
        except Exception as error:  # rosbags reads whatever bytes say, and fails in every way
            cause = " ".join(str(error).split()) or type(error).__name__
            self.damage.corrupt(f"{stored.topic}: message {number} at {stored.time_ns} does not decode ({cause})")
            return None
        return Recorded(stored.topic, stored.kind, number, stored.time_ns, message)

    def _open(self, file: Path) -> Storage:
        return open_storage(self._plain(file))

    def _plain(self, file: Path) -> Path:
        """The file itself, or its content where the whole file is compressed."""
        if file.suffix != _ZSTD_SUFFIX:
            return file
        if file not in self._unpacked:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="mfuser_bag_")
            target = Path(self._folder.name) / file.with_suffix("").name
            try:
                with file.open("rb") as packed, target.open("wb") as plain:
                    zstandard.ZstdDecompressor().copy_stream(packed, plain)
            except zstandard.ZstdError as error:  # what came before is kept
                self.damage.lost(f"{file.name}: zstd stream breaks off ({error})")
            self._unpacked[file] = target
        return self._unpacked[file]

    def _find_files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such file or folder: give a bag")
        there = sorted(file for file in self.path.iterdir() if _is_data(file))
        if not there:
            raise InputError(f"{self.path}: holds no .mcap or .db3 file: give a bag")
        stated = self._stated_files()
        if stated is None:
            return there
        for file in stated:
            if not file.exists():
                self.damage.lost(f"{file.name}: missing, but metadata.yaml lists it")
        found = [file for file in stated if file.exists()]
        if not found:
            raise InputError(f"{self.path}: none of the files that metadata.yaml lists is there: copy the bag again")
        return found

    def _stated_files(self) -> list[Path] | None:
        """Data files in the order that metadata.yaml states; None where it does not tell."""
        try:
            stated = yaml.safe_load((self.path / "metadata.yaml").read_text(encoding="utf-8"))
            information = stated["rosbag2_bagfile_information"]
            files = [self.path / Path(name).name for name in information["relative_file_paths"]]
            counts = {
                entry["topic_metadata"]["name"]: int(entry["message_count"])
                for entry in information["topics_with_message_count"]
            }
        except FileNotFoundError:
            self.damage.lost("metadata.yaml: missing, as after a recording that was killed: all data files are read")
            return None
        except (
            OSError,
            yaml.YAMLError,
            UnicodeDecodeError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            self.damage.lost(f"metadata.yaml: unusable ({cause}): all data files are read")
            return None
        self._counts = counts
        return files or None


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag: a .mcap or .db3 file, or a folder that holds one or a metadata.yaml."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or any(_is_data(file) for file in path.iterdir())
    return _is_data(path)


def find_bags(path: Path) -> list[Path]:
    """The bag at a path, or the bags that lie in that folder, by name; none where there are none.

    A folder of data files alone is one bag without its metadata.yaml; beside folders with bags each file is a bag, too.
    """
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        inside = sorted(file for file in path.iterdir() if is_bag(file))
        if any(file.is_dir() for file in inside):
            return inside
    return [path] if is_bag(path) else []


def _is_data(file: Path) -> bool:
    plain = file.with_suffix("") if file.suffix == _ZSTD_SUFFIX else file
    return plain.suffix in DATA_SUFFIXES and not file.is_dir()
