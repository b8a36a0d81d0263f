"""Picture files of every usual kind become upright RGB arrays; what is no picture is named."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mfuser_ros.datasets.pictures import find_pictures, read_picture
from mfuser_ros.errors import InputError

LEFT_RED = np.zeros((8, 12, 3), np.uint8)
LEFT_RED[:, :6, 0] = 255


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_kinds_come_back_as_rgb(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(LEFT_RED).save(path, lossless=True)

    assert np.array_equal(read_picture(path), LEFT_RED)


def test_jpeg_of_a_turned_camera_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top row of the scene is the file's right side: turn a quarter clockwise
    Image.fromarray(np.repeat(np.repeat(LEFT_RED, 4, 0), 4, 1)).save(tmp_path / "turned.jpg", exif=exif, quality=95)

    picture = read_picture(tmp_path / "turned.jpg")

    assert picture.shape == (48, 32, 3)
    assert picture[4, 16, 0] > 200  # the left has become the top
    assert picture[44, 16, 0] < 50


def test_grey_and_16_bit_become_8_bit_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 4), 0x8000, np.uint16))

    picture = read_picture(tmp_path / "deep.png")

    assert picture.shape == (4, 4, 3)
    assert picture.dtype == np.uint8
    assert (picture == 128).all()


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_file_that_is_no_picture_is_named(tmp_path, content):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"bad\.jpg: does not decode"):
        read_picture(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.jpg: cannot be read"):
        read_picture(tmp_path / "none.jpg")


def test_pictures_of_a_folder_are_sorted_and_hidden_ones_left_out(tmp_path):
    for name in ("b/2.png", "a.JPG", "b/1.png", ".cache/3.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    found = [str(path.relative_to(tmp_path)) for path in find_pictures(tmp_path)]

    assert found == ["a.JPG", "b/1.png", "b/2.png"]


def test_folder_without_pictures_is_named(tmp_path):
    with pytest.raises(InputError, match="no pictures"):
        find_pictures(tmp_path)
