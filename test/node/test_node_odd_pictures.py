"""Pictures that are odd but usable, and messages that are not, into one node that must survive them all."""

from __future__ import annotations

import array

import numpy as np
import pytest
from stand_in import picture

RGB = picture()
MASK = np.where(RGB[..., 1] >= 200, 255, RGB[..., 0] % 19)


def levels():
    from diagnostic_msgs.msg import DiagnosticStatus

    return DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def ids(mask) -> np.ndarray:
    return np.array(mask.data, np.uint8).reshape(mask.height, mask.width)


def padded(rgb: np.ndarray, padding: int, trailing: int = 0) -> bytes:
    rows = rgb.reshape(len(rgb), -1)
    return np.pad(rows, ((0, 0), (0, padding)), constant_values=77).tobytes() + b"x" * trailing


SIXTEEN = RGB.astype(np.uint16) * 257


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 64 * 3 + 20, "data": padded(RGB, 20)},
        {"step": 64 * 3 + 1, "data": padded(RGB, 1)[:-1]},  # the last row need not be padded
        {"data": padded(RGB, 0, trailing=100)},
        {"is_bigendian": 1},  # says nothing of 8-bit samples
        {"encoding": "rgb16", "step": 64 * 6, "data": SIXTEEN.astype("<u2").tobytes()},
        {"encoding": "rgb16", "step": 64 * 6, "is_bigendian": 1, "data": SIXTEEN.astype(">u2").tobytes()},
        {
            "encoding": "bgr16",
            "step": 64 * 6 + 10,
            "is_bigendian": 1,
            "data": padded(np.ascontiguousarray(SIXTEEN[..., ::-1].astype(">u2")).view(np.uint8), 10),
        },
        {"encoding": "bgr8", "data": RGB[..., ::-1].tobytes()},
        {"encoding": "8UC3", "data": RGB[..., ::-1].tobytes()},
        {"encoding": "rgba8", "step": 256, "data": np.dstack([RGB, RGB[..., :1]]).tobytes()},
        {"encoding": "bgra8", "step": 256, "data": np.dstack([RGB[..., ::-1], RGB[..., :1]]).tobytes()},
    ],
    ids=[
        "padding", "odd padding", "trailing bytes", "big-endian 8 bit", "little-endian", "big-endian", "padded bgr16",
        "bgr8", "8UC3", "rgba8", "bgra8",
    ],
)  # fmt: skip
def test_odd_picture_is_segmented_as_the_plain_one(shared, changes):
    mask = shared.segment(RGB, **changes)

    np.testing.assert_array_equal(ids(mask), MASK)
    assert mask.step == mask.width


@pytest.mark.parametrize(
    ("encoding", "pixel_bytes"),
    [("mono8", 1), ("mono16", 2), ("bayer_rggb8", 1), ("yuyv", 2), ("uyvy", 2), ("yuv422", 2), ("yuv422_yuy2", 2)],
)
def test_encoding_that_carries_no_rgb_gives_a_mask_of_its_size(shared, encoding, pixel_bytes):
    data = np.full(48 * 64 * pixel_bytes, 128, np.uint8).tobytes()

    mask = shared.segment(RGB, encoding=encoding, step=64 * pixel_bytes, data=data)

    assert ids(mask).shape == (48, 64)
    # grey 128; or luma 128 of 16 to 235 without colour: (128 - 16) * 255 / 219 = 130
    red = 130 if encoding.startswith(("yu", "uy")) else 128
    assert set(ids(mask).reshape(-1)) == {red % 19}


@pytest.mark.parametrize("size", [(8_193, 1), (8_001, 8_000)])
def test_raw_picture_that_would_be_huge_is_dropped(shared, size):
    width, height = size
    masks = len(shared.masks)

    shared.send(RGB, width=width, height=height, step=3 * width)  # the data are not there either

    shared.wait_for_status(levels()[2], f"too_large: image of {width}x{height}")
    assert len(shared.masks) == masks


def test_size_that_changes_is_taken_up_and_told(shared):
    for height, width in ((20, 30), (48, 64)):
        mask = shared.segment(picture(height, width))

        assert ids(mask).shape == (height, width)
        line = f"front: pictures are {width}x{height} from now on"
        shared.wait(lambda line=line: shared.lines(line), "the change is not in the log")


def test_no_bad_message_ends_the_node(shared):
    """Every field of an Image at odd values, one after the other."""
    from sensor_msgs.msg import Image

    publisher = shared.image_publishers["front"]
    for height, width, step, encoding, data in (
        (0, 0, 0, "", b""),
        (2**32 - 1, 2**32 - 1, 2**32 - 1, "rgb8", b"x"),
        (1, 1, 0, "rgb8", b"xyz"),
        (1, 1, 2**32 - 1, "rgb8", b"xyz"),
        (1, 1, 3, "rgb8\n; rm", b"xyz"),
        (1, 3, 6, "yuyv", b"123456"),
        (2, 2, 6, "RGB8", bytes(12)),
    ):
        message = Image(height=height, width=width, step=step, encoding=encoding, data=array.array("B", data))
        message.header = shared.header(frame="a" * 2000)
        publisher.publish(message)

    np.testing.assert_array_equal(ids(shared.segment(RGB)), MASK)
