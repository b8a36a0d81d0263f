"""Data files of a bag, MCAP or SQLite, read from the front as far as they go."""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import apsw
import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
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


_MCAP_FAULTS = (
    McapError,
    zstandard.ZstdError,
    struct.error,
    ArithmeticError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    ValueError,
)
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
        known = _Announced({}, {})
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
                    yield from known.messages(_cut_chunk(self.file, begin), topics)
                    raise DamageError(f"ends or breaks off at byte {begin} ({_cause(error)})") from error
                if record is None:
                    return
                found, fault = _contents(record, begin)
                yield from known.messages(found, topics)
                if fault is not None:
                    yield fault


class _Announced(NamedTuple):
    """Schemas and channels that have been met, by their ids."""

    schemas: dict[int, Schema]
    channels: dict[int, Channel]

    def messages(self, records: Iterable[McapRecord], topics: Collection[str] | None) -> Iterator[StoredMessage]:
        """Messages of `topics` among the records; what the records announce is learnt on the way."""
        for record in records:
            if isinstance(record, Schema):
                self.schemas[record.id] = record
            elif isinstance(record, Channel):
                self.channels[record.id] = record
            elif isinstance(record, Message) and record.channel_id in self.channels:
                channel = self.channels[record.channel_id]
                if topics is None or channel.topic in topics:
                    kind = _kind(self.schemas.get(channel.schema_id))
                    yield StoredMessage(channel.topic, kind, record.log_time, record.data)


def _cut_chunk(file: Path, begin: int) -> list[McapRecord]:
    """The whole records in a chunk that the end of the file cuts off; none where no chunk begins there."""
    with file.open("rb") as stream:
        stream.seek(begin)
        content = stream.read(MAX_RECORD_BYTES)
    try:
        opcode, _, _, _, _, _, name_bytes = struct.unpack_from("<BQQQQIL", content)
        place = struct.calcsize("<BQQQQIL")
        compression = content[place : place + name_bytes].decode()
        packed = content[place + name_bytes + 8 :]  # behind the length of what follows
        return _whole_records(_unpacked(packed, compression)) if opcode == Opcode.CHUNK else []
    except _MCAP_FAULTS:
        return []


def _unpacked(packed: bytes, compression: str) -> bytes:
    """As much as comes out of the beginning of compressed data."""
    if compression == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    if compression == "lz4":
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(packed))
    return packed


def _whole_records(content: bytes) -> list[McapRecord]:
    kinds = {Opcode.SCHEMA: Schema.read, Opcode.CHANNEL: Channel.read}
    found: list[McapRecord] = []
    place = 0
    while place + 9 <= len(content):
        opcode, length = struct.unpack_from("<BQ", content, place)
        place += 9
        if place + length > len(content):
            break
        stream = ReadDataStream(io.BytesIO(content[place : place + length]))
        if opcode == Opcode.MESSAGE:
            found.append(Message.read(stream, length))
        elif opcode in kinds:
            found.append(kinds[opcode](stream))
        place += length
    return found


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
            names = self._names(self._connect())
        except _SQLITE_FAULTS as error:
            raise DamageError(f"the table of topics cannot be read ({_cause(error)})") from error
        try:
            counted = self._connect().execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id").fetchall()
            counts = {_integer(topic): _integer(count) for topic, count in counted}
        except _SQLITE_FAULTS:
            counts = {}
        return _merged(Topic(name, kind, counts.get(key, 0)) for key, (name, kind) in names.items())

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage | DamageError]:
        """As `Storage.messages`."""
        last = 0
        try:
            connection = self._connect()
            names = self._names(connection)
            wanted = ", ".join(str(key) for key, (name, _) in names.items() if name in topics)
            for key, topic, time_ns, data in connection.execute(
                f"SELECT id, topic_id, timestamp, data FROM messages WHERE topic_id IN ({wanted}) ORDER BY id"
            ):
                last = _integer(key)
                if not isinstance(data, bytes):
                    raise ValueError(f"message {last} has no data")
                yield StoredMessage(*names[_integer(topic)], _integer(time_ns), data)
        except _SQLITE_FAULTS as error:
            raise DamageError(f"SQLite reads no further than message {last} ({_cause(error)})") from error

    def _names(self, connection: apsw.Connection) -> dict[int, tuple[str, str]]:
        """Name and type of each topic by its id."""
        rows = connection.execute("SELECT id, name, type FROM topics ORDER BY id")
        return {_integer(key): (str(name), str(kind)) for key, name, kind in rows}

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(
            f"{self.file.resolve().as_uri()}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        # without it SQLite refuses every page of a file that is shorter than its header says
        connection.execute("PRAGMA writable_schema=ON")
        return connection


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} stands where a number should")
    return value


_SQLITE_FAULTS = (apsw.Error, LookupError, ValueError, OverflowError)


def _merged(topics: Iterable[Topic]) -> list[Topic]:
    """Topics with one entry for each name and type: a split or restarted recording announces them again."""
    counts: Counter[tuple[str, str]] = Counter()
    for entry in topics:
        counts[entry.name, entry.kind] += entry.messages
    return [Topic(name, kind, count) for (name, kind), count in counts.items()]
