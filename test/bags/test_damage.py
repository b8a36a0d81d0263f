"""Bags broken on purpose: one line with path and cause, never another exception."""

import random

import numpy as np
import pytest

from mfuser_ros.bags import BagReader, BagWriter
from mfuser_ros.errors import InputError


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def content(request, tmp_path_factory):
    """File name -> bytes of a sound bag of ten frames."""
    path = tmp_path_factory.mktemp("sound") / "bag"
    pixels = np.random.default_rng(0).integers(0, 256, (10, 24, 32), dtype=np.uint8)
    with BagWriter(path, storage=request.param) as bag:
        for index, picture in enumerate(pixels):
            bag.mask("/front/image_raw", picture, stamp_ns=index, frame_id="a")
    return {file.name: file.read_bytes() for file in path.iterdir()}


def restore(content, path):
    path.mkdir()
    for name, data in content.items():
        (path / name).write_bytes(data)
    return path


def data_file(path):
    return next(file for file in path.iterdir() if file.name != "metadata.yaml")


def read_all(path):
    with BagReader(path) as bag:
        return len(list(bag.frames("/front/image_raw")))


def test_sound_bag_reads(content, tmp_path):
    assert read_all(restore(content, tmp_path / "bag")) == 10


def test_truncated_bag_says_so(content, tmp_path):
    path = restore(content, tmp_path / "bag")
    file = data_file(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match=r"bag: damaged or no bag \(.+\): record or copy it again") as raised:
        read_all(path)
    assert "\n" not in str(raised.value)


def test_missing_bag_says_so(tmp_path):
    with pytest.raises(InputError, match="gone: no such file or folder: give a bag"):
        read_all(tmp_path / "gone")


def test_folder_without_metadata_points_at_the_file(content, tmp_path):
    path = restore(content, tmp_path / "bag")
    (path / "metadata.yaml").unlink()
    with pytest.raises(InputError, match=r"folder has no metadata.yaml: name the .mcap or .db3 file in it instead"):
        read_all(path)


def test_missing_data_file_says_so(content, tmp_path):
    path = restore(content, tmp_path / "bag")
    data_file(path).unlink()
    with pytest.raises(InputError, match="bag: "):
        read_all(path)


@pytest.mark.parametrize("text", ["", "a: [", "rosbag2_bagfile_information: {version: 99}", "\x00\xff"])
def test_broken_metadata_says_so(content, tmp_path, text):
    path = restore(content, tmp_path / "bag")
    (path / "metadata.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="damaged or no bag"):
        read_all(path)


def test_empty_and_foreign_files_say_so(tmp_path):
    for name, data in {"a.mcap": b"", "b.db3": b"", "c.mcap": b"\xff\xd8\xff\xe0 a picture", "d.txt": b"text"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name}: damaged or no bag"):
            read_all(tmp_path / name)


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_reads_or_is_one_line(content, tmp_path, seed):
    chance = random.Random(seed)
    path = restore(content, tmp_path / "bag")
    file = chance.choice(sorted(path.iterdir()))
    data = bytearray(file.read_bytes())
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    else:
        for _ in range(chance.choice((1, 5, 50))):
            data[chance.randrange(len(data))] = chance.randrange(256)
    file.write_bytes(data)
    said = ""
    try:
        read_all(path)
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert said == "" or "bag: " in said
