"""Bags damaged in every way that was met: what can be read is read, the rest is counted and named."""

import shutil

import numpy as np
import pytest
import yaml
import zstandard
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from mfuser_ros.bags import BagWriter
from mfuser_ros.bags.recording import Recording, find_bags, is_bag
from mfuser_ros.errors import InputError

TOPIC = "/front/image_raw"
TYPES = get_typestore(Stores.ROS2_JAZZY)
NOISE = np.random.default_rng(0).integers(0, 256, (10, 48, 64), dtype=np.uint8)


def write(path, storage="mcap", frames=range(10), *, topic=TOPIC):
    with BagWriter(path, storage=storage) as bag:
        for index in frames:
            bag.image(topic, NOISE[index], encoding="mono8", stamp_ns=index, frame_id="a")
    return path


def chunked(path, *, compression=CompressionType.ZSTD):
    """An MCAP file with checksums and several chunks, as rosbag2's own writer makes it; two messages in a chunk."""
    with path.open("wb") as stream:
        writer = McapWriter(stream, chunk_size=5000, compression=compression)
        writer.start(profile="ros2", library="test")
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"")
        channel = writer.register_channel(TOPIC, "cdr", schema)
        for index in range(10):
            writer.add_message(channel, index, bytes(serialized(index)), index)
        writer.finish()
    return path


def serialized(index):
    types = TYPES.types
    header = types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](sec=0, nanosec=index), frame_id="a"
    )
    message = types["sensor_msgs/msg/Image"](
        header=header, height=48, width=64, encoding="mono8", is_bigendian=0, step=64, data=NOISE[index].reshape(-1)
    )
    return TYPES.serialize_cdr(message, "sensor_msgs/msg/Image")


def read(path):
    """Header stamps of what can be read, and the damage."""
    with Recording(path) as recording:
        stamps = [entry.message.header.stamp.nanosec for entry in recording.messages([TOPIC])]
    return stamps, recording.damage


def data_file(path):
    return next(file for file in sorted(path.iterdir()) if file.name != "metadata.yaml")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_sound_bag_has_every_message_and_no_damage(tmp_path, storage):
    stamps, damage = read(write(tmp_path / "bag", storage))
    assert stamps == list(range(10))
    assert not damage
    with Recording(tmp_path / "bag") as recording:
        assert [(topic.name, topic.messages) for topic in recording.topics()] == [(TOPIC, 10)]


@pytest.mark.parametrize(
    ("plugin", "mode"),
    [
        (StoragePlugin.MCAP, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, CompressionMode.FILE),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
    ],
)
def test_compressed_bag_reads_like_a_plain_one(tmp_path, plugin, mode):
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(TOPIC, "sensor_msgs/msg/Image", typestore=TYPES)
        for index in range(10):
            writer.write(connection, index, serialized(index))
    stamps, damage = read(tmp_path / "bag")
    assert stamps == list(range(10))
    assert not damage


def split_bag(path, storage="mcap"):
    """A bag of three files, as `ros2 bag record --max-bag-duration` leaves it."""
    path.mkdir()
    names = []
    for number, frames in enumerate((range(4), range(4, 7), range(7, 10))):
        part = write(path.parent / f"{path.name}_part{number}", storage, frames)
        file = data_file(part)
        names.append(f"{path.name}_{number}{file.suffix}")
        shutil.move(file, path / names[-1])
        metadata = yaml.safe_load((part / "metadata.yaml").read_text())
    information = metadata["rosbag2_bagfile_information"]
    information["relative_file_paths"] = names
    information["topics_with_message_count"][0]["message_count"] = 10
    (path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    return path


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_split_bag_is_read_through(tmp_path, storage):
    stamps, damage = read(split_bag(tmp_path / "bag", storage))
    assert stamps == list(range(10))
    assert not damage


def test_split_bag_without_one_of_its_files_gives_the_others(tmp_path):
    path = split_bag(tmp_path / "bag")
    (path / "bag_1.mcap").unlink()
    stamps, damage = read(path)
    assert stamps == [0, 1, 2, 3, 7, 8, 9]
    assert damage.named == ["bag_1.mcap: missing, but metadata.yaml lists it"]
    assert damage.incomplete


@pytest.mark.parametrize("compression", [CompressionType.NONE, CompressionType.ZSTD, CompressionType.LZ4])
def test_cut_mcap_file_gives_all_whole_chunks(tmp_path, compression):
    file = chunked(tmp_path / "drive.mcap", compression=compression)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    stamps, damage = read(file)
    assert stamps == list(range(len(stamps)))
    assert 3 <= len(stamps) <= 6
    assert damage.incomplete
    assert "drive.mcap: ends or breaks off at byte" in damage.named[0]


def test_mcap_file_cut_within_its_only_chunk_gives_the_whole_messages_in_it(tmp_path):
    file = data_file(write(tmp_path / "bag"))
    content = file.read_bytes()
    place = content.find(NOISE[7].tobytes())
    file.write_bytes(content[: place + 100])  # in the middle of message 7
    stamps, damage = read(file)
    assert stamps == list(range(7))
    assert damage.incomplete


def test_cut_sqlite_file_gives_what_sqlite_reads(tmp_path):
    path = write(tmp_path / "bag", "sqlite3")
    file = data_file(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    stamps, damage = read(path)
    assert stamps == list(range(len(stamps)))
    assert stamps
    assert damage.incomplete
    assert "SQLite reads no further than message" in damage.named[0]


@pytest.mark.parametrize("compression", [CompressionType.NONE, CompressionType.ZSTD, CompressionType.LZ4])
def test_wrong_bit_in_a_chunk_costs_that_chunk_alone(tmp_path, compression):
    file = chunked(tmp_path / "drive.mcap", compression=compression)
    content = bytearray(file.read_bytes())
    content[content.find(NOISE[4].tobytes()[:16]) if compression is CompressionType.NONE else len(content) // 2] ^= 4
    file.write_bytes(bytes(content))
    stamps, damage = read(file)
    lost = set(range(10)) - set(stamps)
    assert 1 <= len(lost) <= 2
    assert stamps == sorted(stamps)
    assert "is damaged" in damage.named[0]


def test_message_that_does_not_decode_is_counted_and_named(tmp_path):
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
    with writer:
        connection = writer.add_connection(TOPIC, "sensor_msgs/msg/Image", typestore=TYPES)
        for index in range(10):
            whole = bytes(serialized(index))
            writer.write(connection, index, whole[: len(whole) // 2] if index == 3 else whole)
    stamps, damage = read(tmp_path / "bag")
    assert stamps == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert (damage.messages, damage.incomplete) == (1, False)
    assert damage.named[0].startswith(f"{TOPIC}: message 3 at 3 does not decode")


@pytest.mark.parametrize("text", [None, "a: [", "rosbag2_bagfile_information: {version: 99}", "\x00\xff"])
def test_folder_with_lost_or_broken_metadata_gives_its_files(tmp_path, text):
    path = write(tmp_path / "bag")
    (path / "metadata.yaml").unlink()
    if text is not None:
        (path / "metadata.yaml").write_text(text, encoding="latin-1")
    stamps, damage = read(path)
    assert stamps == list(range(10))
    assert damage.incomplete
    assert damage.named[0].startswith("metadata.yaml: ")


def test_unknown_type_with_a_made_up_hash_does_not_keep_pictures_from_being_read(tmp_path):
    path = write(tmp_path / "bag")
    metadata = yaml.safe_load((path / "metadata.yaml").read_text())
    topics = metadata["rosbag2_bagfile_information"]["topics_with_message_count"]
    strange = {
        **topics[0]["topic_metadata"],
        "name": "/x",
        "type": "our_msgs/msg/X",
        "type_description_hash": "RIHS01_0",
    }
    topics.append({"topic_metadata": strange, "message_count": 0})
    (path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    assert read(path)[0] == list(range(10))


def test_topic_with_two_types_is_refused(tmp_path):
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for kind in ("std_msgs/msg/String", "std_msgs/msg/Int8"):
            connection = writer.add_connection(TOPIC, kind, typestore=TYPES)
            message = TYPES.types[kind](data="x" if kind.endswith("String") else 1)
            writer.write(connection, 0, TYPES.serialize_cdr(message, kind))
    with pytest.raises(InputError, match="topic /front/image_raw has two types"):
        read(tmp_path / "bag")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.mcap", b"", "file is empty"),
        ("b.db3", b"", "file is empty"),
        ("c.mcap", b"\xff\xd8\xff\xe0 a picture", "is neither MCAP nor SQLite"),
        ("d.txt", b"text", "is neither MCAP nor SQLite"),
        ("e.mcap", b"\x89MCAP0\r\n", "ends or breaks off at byte 0"),
        ("f.db3", b"SQLite format 3\x00", "table of topics cannot be read"),
    ],
)
def test_file_that_holds_nothing_is_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        InputError, match=rf"{name}: damaged or no bag \(.*{said}.*\): record or copy it again"
    ) as raised:
        read(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_what_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="gone: no such file or folder: give a bag"):
        Recording(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no .mcap or .db3 file"):
        Recording(tmp_path / "empty")


def test_cut_zstd_file_gives_what_came_before(tmp_path):
    file = chunked(tmp_path / "drive.mcap", compression=CompressionType.NONE)
    content, packer = file.read_bytes(), zstandard.ZstdCompressor().compressobj()
    packed = b""
    for begin in range(0, len(content), 4000):  # in blocks, as a stream is written
        packed += packer.compress(content[begin : begin + 4000]) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    (tmp_path / "drive.mcap.zstd").write_bytes(packed[: len(packed) * 2 // 3])
    stamps, damage = read(tmp_path / "drive.mcap.zstd")
    assert damage.incomplete
    assert stamps == list(range(len(stamps)))
    assert 2 <= len(stamps) <= 8


def test_bags_are_told_from_other_folders(tmp_path):
    assert is_bag(write(tmp_path / "bag"))
    assert is_bag(data_file(tmp_path / "bag"))
    (tmp_path / "set").mkdir()
    assert not is_bag(tmp_path / "set")
    assert not is_bag(tmp_path / "camvid/dusk")


def test_folder_of_bags_is_told_from_a_bag_without_metadata(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / "archive" / name)
    (tmp_path / "archive" / "c.mcap").write_bytes(b"x")
    assert [bag.name for bag in find_bags(tmp_path / "archive")] == ["a", "b", "c.mcap"]
    assert find_bags(tmp_path / "archive" / "a") == [tmp_path / "archive" / "a"]
    (tmp_path / "archive" / "a" / "metadata.yaml").unlink()
    assert find_bags(tmp_path / "archive" / "a") == [tmp_path / "archive" / "a"]
    assert find_bags(tmp_path / "gone") == []


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("seed", range(15))
def test_random_damage_never_ends_in_another_exception(tmp_path, storage, seed):
    chance = np.random.default_rng(seed)
    file = data_file(write(tmp_path / "bag", storage))
    content = bytearray(file.read_bytes())
    for place in chance.integers(0, len(content), chance.choice([1, 5, 50])):
        content[place] = chance.integers(256)
    file.write_bytes(bytes(content[: chance.choice([len(content), len(content) // 2])]))
    said, stamps, damage = "", [], None
    try:
        stamps, damage = read(tmp_path / "bag")
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert said or damage or len(stamps) == 10
