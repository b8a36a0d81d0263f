"""Data files of a bag, MCAP or SQLite, read from the front as far as they go."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import apsw
from mcap.exceptions import McapError
from mcap.reader import SeekingReader
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import CRCValidationError, StreamReader, breakup_chunk

from mfuser_ros.bags.read import Topic

MAX_RECORD_BYTES = 2**30
"""A length above it is damage: no picture is that large, and reading it would ask for the memory."""

_MCAP_MAGIC = b"\x89MCAP0\r\n"
_SQLITE_MAGIC = b"SQLite format 3\x00"


class DamageError(Exception):
    """A part of a file cannot be read; the text says which and why."""


class StoredMessage(NamedTuple):
    """One message as it lies in a file."""

    topic: str
    kind: str
    time_ns: int  # when it was recorded
    data: bytes  # CDR, or zstd of it


class Storage(Protocol):
    """One data file."""

    def topics(self) -> list[Topic]:
        """Topics with the number of messages, 0 where the file does not say.

        Raises:
            DamageError: the file tells nothing.
        """

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage | DamageError]:
        """Messages of `topics` in recorded order, and in between what is damaged.

        Raises:
            DamageError: nothing after this place can be read.
        """


def open_storage(file: Path) -> Storage:
    """The reader that the first bytes of `file` ask for.

    Raises:
        DamageError: the file cannot be opened, is empty, or is neither MCAP nor SQLite.
    """
    try:
        with file.open("rb") as stream:
            magic = stream.read(16)
    except OSError as error:
        raise DamageError(f"cannot be read ({error.strerror})") from error
    if not magic:
        raise DamageError("file is empty")
    if magic.startswith(_MCAP_MAGIC):
        return McapFile(file)
    if magic == _SQLITE_MAGIC:
        return SqliteFile(file)
    raise DamageError("is neither MCAP nor SQLite")


_MCAP_FAULTS = (McapError, CRCValidationError, struct.error, ValueError, LookupError, EOFError, OSError, RuntimeError)
"""What mcap and its decompressors raise on wrong bytes, seen by cutting and overwriting files at random."""


class McapFile:
    """An MCAP file, read record by record without its index."""

    def __init__(self, file: Path) -> None:
        """Name the file."""
        self.file = file

    def topics(self) -> list[Topic]:
        """As `Storage.topics`; from the index at the end, or record by record where that is lost."""
        try:
            with self.file.open("rb") as stream:
                summary = SeekingReader(stream, record_size_limit=MAX_RECORD_BYTES).get_summary()
        except _MCAP_FAULTS:
            summary = None
        if summary is not None and summary.channels and summary.statistics is not None:
            counts = summary.statistics.channel_message_counts
            return _merged(
                Topic(channel.topic, _kind(summary.schemas.get(channel.schema_id)), counts.get(channel.id, 0))
                for channel in summary.channels.values()
            )
        seen: Counter[tuple[str, str]] = Counter()
        try:
            for record in self.messages(None):
                if isinstance(record, StoredMessage):
                    seen[record.topic, record.kind] += 1
        except DamageError:
            if not seen:
                raise
        return _merged(Topic(name, kind, count) for (name, kind), count in seen.items())

    def messages(self, topics: Collection[str] | None) -> Iterator[StoredMessage | DamageError]:
        """As `Storage.messages`; None stands for every topic."""
        schemas: dict[int, Schema] = {}
        channels: dict[int, Channel] = {}
        with self.file.open("rb") as stream:
            records = StreamReader(
                stream, emit_chunks=True, validate_crcs=True, record_size_limit=MAX_RECORD_BYTES
            ).records
            while True:
                begin = stream.tell()
                try:
                    record = next(records, None)
                except CRCValidationError as error:  # of the whole data section; its messages have been yielded
                    raise DamageError(f"some byte before {begin} is wrong ({_cause(error)})") from error
                except _MCAP_FAULTS as error:
                    raise DamageError(f"ends or breaks off at byte {begin} ({_cause(error)})") from error
                if record is None:
                    return
                found, fault = _contents(record, begin)
                for part in found:
                    if isinstance(part, Schema):
                        schemas[part.id] = part
                    elif isinstance(part, Channel):
                        channels[part.id] = part
                    elif isinstance(part, Message):
                        channel = channels.get(part.channel_id)
                        if channel is None:
                            fault = fault or DamageError(f"a message before byte {stream.tell()} is of no known topic")
                        elif topics is None or channel.topic in topics:
                            kind = _kind(schemas.get(channel.schema_id))
                            yield StoredMessage(channel.topic, kind, part.log_time, part.data)
                if fault is not None:
                    yield fault


def _contents(record: McapRecord, begin: int) -> tuple[list[McapRecord], DamageError | None]:
    """Records inside a chunk, or the record itself; and what is wrong with the chunk."""
    if not isinstance(record, Chunk):
        return [record], None
    try:
        return breakup_chunk(record, validate_crc=True), None
    except _MCAP_FAULTS as error:
        # topics are announced in chunks, so those of a damaged one are looked for as long as its records hold
        fault = DamageError(f"the chunk before byte {begin + len(record.data)} is damaged ({_cause(error)})")
        return _announcements(record), fault


def _announcements(chunk: Chunk) -> list[McapRecord]:
    try:
        parts = breakup_chunk(chunk)
    except _MCAP_FAULTS:
        return []
    return [part for part in parts if isinstance(part, (Schema, Channel))]


def _kind(schema: Schema | None) -> str:
    return "" if schema is None else schema.name


def _cause(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class SqliteFile:
    """A SQLite database as rosbag2 writes it."""

    def __init__(self, file: Path) -> None:
        """Name the file."""
        self.file = file

    def topics(self) -> list[Topic]:
        """As `Storage.topics`."""
        try:
            rows = self._connect().execute("SELECT id, name, type FROM topics ORDER BY id").fetchall()
        except apsw.Error as error:
            raise DamageError(f"the table of topics cannot be read ({_cause(error)})") from error
        try:
            counted = self._connect().execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id").fetchall()
        except apsw.Error:
            counted = []
        counts = {int(topic): int(count) for topic, count in counted}
        return _merged(Topic(str(name), str(kind), counts.get(int(key), 0)) for key, name, kind in rows)

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage | DamageError]:
        """As `Storage.messages`."""
        last = 0
        try:
            connection = self._connect()
            names = {
                int(key): (str(name), str(kind))
                for key, name, kind in connection.execute("SELECT id, name, type FROM topics")
            }
            for key, topic, time_ns, data in connection.execute(
                "SELECT id, topic_id, timestamp, data FROM messages ORDER BY id"
            ):
                last = int(key)
                name, kind = names.get(int(topic), ("", ""))
                if name in topics:
                    yield StoredMessage(name, kind, int(time_ns), bytes(data))
        except (apsw.Error, TypeError, ValueError) as error:
            raise DamageError(f"SQLite reads no further than message {last} ({_cause(error)})") from error

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(
            f"{self.file.resolve().as_uri()}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        # without it SQLite refuses every page of a file that is shorter than its header says
        connection.execute("PRAGMA writable_schema=ON")
        return connection


def _merged(topics: Iterator[Topic]) -> list[Topic]:
    """Topics with one entry for each name and type: a split or restarted recording announces them again."""
    counts: Counter[tuple[str, str]] = Counter()
    for entry in topics:
        counts[entry.name, entry.kind] += entry.messages
    return [Topic(name, kind, count) for (name, kind), count in counts.items()]
