"""Image messages to arrays, without ROS: what each encoding becomes, and what is refused."""

from __future__ import annotations

import array
import contextlib
import struct
import subprocess
import sys
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuser_ros.node.images import ACCEPTED, ImageError, check, cv_bridge_conversion, encoding_of, to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
GREY_RAMP = np.arange(48, dtype=np.uint16).reshape(6, 8)


def image(encoding: str, pixels: np.ndarray, *, padding: int = 0, trailing: int = 0, big: bool = False, data=bytes):
    """A message like sensor_msgs/Image; rows are followed by `padding` bytes."""
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xEE)
    return SimpleNamespace(
        encoding=encoding,
        height=pixels.shape[0],
        width=pixels.shape[1],
        step=padded.shape[1],
        is_bigendian=int(big),
        data=data(padded.tobytes() + b"\xee" * trailing),
    )


def compressed(data: bytes, text: str = "jpeg"):
    """A message like sensor_msgs/CompressedImage."""
    return SimpleNamespace(format=text, data=data)


def smooth(height: int = 60, width: int = 80) -> np.ndarray:
    """RGB picture that survives JPEG: a red ramp to the right, a green one downwards, constant blue."""
    picture = np.full((height, width, 3), 40, np.uint8)
    picture[..., 0] = np.linspace(0, 255, width)
    picture[..., 1] = np.linspace(0, 255, height)[:, None]
    return picture


def as_array(data: bytes) -> array.array:
    return array.array("B", data)


def as_read_only(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("data", [bytes, as_array, as_read_only], ids=["mcap bytes", "rclpy array", "rosbags array"])
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", np.dstack([RGB, RGB[..., :1]]), RGB),
        ("bgra8", np.dstack([RGB[..., ::-1], RGB[..., :1]]), RGB),
        ("mono8", RGB[..., 0], np.repeat(RGB[..., :1], 3, axis=2)),
    ],
)
def test_plain_encoding_becomes_rgb(encoding, pixels, expected, padding, data):
    result = to_rgb(image(encoding, pixels, padding=padding, trailing=3, data=data))

    np.testing.assert_array_equal(result, expected)
    assert result.flags.c_contiguous


def test_unpadded_rgb8_is_not_copied():
    message = image("rgb8", RGB, data=as_array)

    picture = to_rgb(message)

    message.data[0] = 77
    assert picture[0, 0, 0] == 77


@pytest.mark.parametrize("big", [False, True], ids=["little endian", "big endian"])
@pytest.mark.parametrize("padding", [0, 3])
def test_16_bit_samples_are_scaled_by_257(big, padding):
    order = ">u2" if big else "<u2"
    levels = (GREY_RAMP * 257).astype(order)  # 257 * n is n in 8 bits

    grey = to_rgb(image("mono16", levels, big=big, padding=padding))
    colour = to_rgb(
        image("bgr16", np.dstack([levels, levels // 2, levels * 0]).astype(order), big=big, padding=padding)
    )

    np.testing.assert_array_equal(grey, np.repeat(GREY_RAMP[..., None], 3, axis=2))
    np.testing.assert_array_equal(colour[..., 2], GREY_RAMP)
    np.testing.assert_array_equal(colour[..., 0], 0)


def test_endianness_of_8_bit_samples_is_ignored():
    np.testing.assert_array_equal(to_rgb(image("rgb8", RGB, big=True)), RGB)


@pytest.mark.parametrize(
    ("encoding", "mosaic"),
    [
        ("bayer_rggb8", [["r", "g"], ["g", "b"]]),
        ("bayer_bggr8", [["b", "g"], ["g", "r"]]),
        ("bayer_gbrg8", [["g", "b"], ["r", "g"]]),
        ("bayer_grbg8", [["g", "r"], ["b", "g"]]),
    ],
)
def test_mosaic_of_one_colour_becomes_that_colour(encoding, mosaic):
    colour = {"r": 200, "g": 120, "b": 30}
    cell = np.array([[colour[name] for name in row] for row in mosaic], np.uint8)

    result = to_rgb(image(encoding, np.tile(cell, (4, 5))))

    assert (result[2:-2, 2:-2] == (200, 120, 30)).all()


@pytest.mark.parametrize(
    ("names", "order"),
    [(("uyvy", "yuv422"), (0, 1, 2, 3)), (("yuyv", "yuv422_yuy2"), (1, 0, 3, 2))],
    ids=["uyvy", "yuyv"],
)
def test_yuv_pairs_become_rgb(names, order):
    # ITU-R BT.601, studio range: Y 81, U 90, V 240 is pure red; Y 145, U 54, V 34 pure green
    red, green = (90, 81, 240, 81), (54, 145, 34, 145)
    pairs = np.array([[red, green], [green, red]], np.uint8)[..., list(order)]
    for name in names:
        message = image(name, pairs.reshape(2, 4, 2))
        assert (message.width, message.step) == (4, 8)

        result = to_rgb(message).astype(int)

        assert abs(result[0, :2] - (255, 0, 0)).max() <= 2
        assert abs(result[0, 2:] - (0, 255, 0)).max() <= 2
        assert abs(result[1, :2] - (0, 255, 0)).max() <= 2


@pytest.mark.skipif(cv_bridge_conversion() is None, reason="cv_bridge comes with a ROS installation, and there is none")
@pytest.mark.parametrize(
    "encoding", ["bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8", "yuv422", "yuv422_yuy2", "mono16", "rgb16"]
)
def test_cv_bridge_and_opencv_agree(encoding, monkeypatch):
    channels = {"yuv422": 2, "yuv422_yuy2": 2, "rgb16": 3}.get(encoding, 1)
    kind = np.uint16 if encoding.endswith("16") else np.uint8
    pixels = np.random.default_rng(1).integers(0, np.iinfo(kind).max, (16, 16, channels), kind)
    message = image(encoding, pixels[..., 0] if channels == 1 else pixels)

    by_bridge = to_rgb(message)
    monkeypatch.setattr("mfuser_ros.node.images.cv_bridge_conversion", lambda: None)
    by_opencv = to_rgb(message)

    assert abs(by_bridge.astype(int) - by_opencv).max() <= 1


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.sampled_from(["rgb8", "bgr8", "rgba8", "mono8"]))
def test_any_size_and_padding_gives_every_pixel_in_place(height, width, padding, encoding):
    channels = {"rgba8": 4, "mono8": 1}.get(encoding, 3)
    pixels = np.random.default_rng(height * 41 + width).integers(0, 256, (height, width, channels), np.uint8)

    result = to_rgb(image(encoding, pixels, padding=padding))

    first, last = (0, 2) if encoding != "bgr8" else (2, 0)
    assert result.shape == (height, width, 3)
    np.testing.assert_array_equal(result[..., first], pixels[..., 0])
    np.testing.assert_array_equal(result[..., last], pixels[..., min(2, channels - 1)])


def altered(**changes):
    message = image("rgb8", RGB)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (altered(width=0), "bad_image", "image of 0x6"),
        (altered(height=0), "bad_image", "image of 8x0"),
        (altered(data=b""), "bad_image", "with 0 bytes"),
        (altered(step=23), "bad_image", "step 23 is less than a row of 8 rgb8 pixels (24)"),
        (altered(data=b"\0" * 143), "bad_image", "143 bytes, 8x6 rgb8 takes 144"),
        (altered(width=8193, step=8193 * 3), "too_large", "8193x6"),
        (altered(width=8192, height=8192, step=8192 * 3), "too_large", "8192x8192"),
        (altered(encoding="16UC1"), "encoding", "may be a depth image"),
        (altered(encoding="32FC1"), "encoding", "may be a depth image"),
        (altered(encoding="8UC1"), "encoding", "may be a label image"),
        (altered(encoding="nv12"), "encoding", "'nv12' is not accepted: publish one of rgb8"),
        (altered(encoding=""), "encoding", "'' is not accepted"),
        (image("yuyv", np.zeros((2, 3, 2), np.uint8)), "bad_image", "odd width 3"),
    ],
)
def test_unusable_image_is_refused_with_one_line(message, kind, text):
    for action in (check, to_rgb):
        with pytest.raises(ImageError) as caught:
            action(message)

        assert caught.value.kind == kind
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)


def test_last_row_needs_no_padding():
    message = image("rgb8", RGB, padding=6)
    message.data = message.data[:-6]

    np.testing.assert_array_equal(to_rgb(message), RGB)


def test_huge_size_is_refused_before_anything_is_allocated():
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(ImageError):
        to_rgb(altered(width=2**31, height=2**31, step=2**32 - 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 100_000


JPEG = cv2.imencode(".jpg", smooth()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
PNG = cv2.imencode(".png", smooth()[..., ::-1])[1].tobytes()
DEPTH_PNG = cv2.imencode(".png", GREY_RAMP * 257)[1].tobytes()


@pytest.mark.parametrize("text", ["jpeg", "", "png", "rgb8; jpeg compressed bgr8", "odd; thing"])
@pytest.mark.parametrize("data", [bytes, as_array, as_read_only])
def test_codec_is_found_by_content(text, data):
    assert abs(to_rgb(compressed(data(JPEG), text)).astype(int) - smooth()).max() <= 12
    np.testing.assert_array_equal(to_rgb(compressed(data(PNG), text)), smooth())


def test_grey_jpeg_is_a_picture():
    grey = cv2.imencode(".jpg", np.full((16, 16), 90, np.uint8))[1].tobytes()

    assert abs(to_rgb(compressed(grey, "mono8; jpeg compressed mono8")).astype(int) - 90).max() <= 2


def test_exif_orientation_does_not_turn_the_picture():
    # APP1 with one TIFF entry: tag 0x0112 (orientation), type short, count 1, value 6 (turn right)
    tiff = b"MM\x00\x2a" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    body = b"Exif\x00\x00" + tiff
    turned = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + JPEG[2:]

    assert to_rgb(compressed(turned)).shape == (60, 80, 3)


def test_16_bit_grey_png_needs_its_name():
    named = to_rgb(compressed(DEPTH_PNG, "mono16; png compressed"))

    np.testing.assert_array_equal(named[..., 0], GREY_RAMP)


def huge_jpeg() -> bytes:
    at = JPEG.index(b"\xff\xc0")
    return JPEG[: at + 5] + struct.pack(">HH", 60000, 60000) + JPEG[at + 9 :]


def huge_png() -> bytes:
    header = b"IHDR" + struct.pack(">II", 50000, 50000) + PNG[24:29]
    return PNG[:12] + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]


@pytest.mark.parametrize(
    ("data", "text", "kind"),
    [
        (b"", "jpeg", "bad_image"),
        (b"not a picture", "jpeg", "bad_image"),
        (JPEG[:2], "jpeg", "bad_image"),
        (JPEG[:30], "jpeg", "bad_image"),
        (JPEG[: len(JPEG) // 2], "jpeg", "bad_image"),
        (JPEG[:-2], "jpeg", "bad_image"),
        (PNG[:20], "png", "bad_image"),
        (PNG[: len(PNG) // 2], "png", "bad_image"),
        (PNG[:60] + b"\0" * 20 + PNG[80:], "png", "bad_image"),
        (huge_jpeg(), "jpeg", "too_large"),
        (huge_png(), "png", "too_large"),
        (PNG, "16UC1; compressedDepth png", "encoding"),
        (DEPTH_PNG, "16UC1; png compressed", "encoding"),
        (DEPTH_PNG, "png", "encoding"),
        (PNG, "32FC1; png compressed", "encoding"),
        (PNG, "8UC1; png compressed", "encoding"),
        (JPEG, "bayer_rggb8; jpeg compressed", "encoding"),
        (JPEG, "bayer_rggb8; jpeg compressed bayer_rggb8", "encoding"),
    ],
)
def test_unusable_compressed_image_is_refused_with_one_line(data, text, kind):
    with pytest.raises(ImageError) as caught:
        to_rgb(compressed(data, text))

    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


def test_debayered_jpeg_is_a_picture():
    assert to_rgb(compressed(JPEG, "bayer_rggb8; jpeg compressed bgr8")).shape == (60, 80, 3)


@given(st.binary(max_size=400), st.integers(0, len(JPEG)))
def test_damaged_jpeg_is_a_picture_or_an_error_of_ours(noise, at):
    damaged = JPEG[:at] + noise + JPEG[at + len(noise) :]

    with contextlib.suppress(ImageError):
        assert to_rgb(compressed(damaged)).ndim == 3


def test_every_accepted_encoding_is_converted():
    for encoding in ACCEPTED:
        pixels = np.zeros((4, 4, 8), np.uint8)  # more than any pixel takes
        message = image(encoding, pixels)
        message.width = 4

        assert to_rgb(message).shape == (4, 4, 3), encoding
        assert encoding_of(message) == encoding


def test_module_needs_no_ros():
    code = "import sys; import mfuser_ros.node.images; print([m for m in sys.modules if m in ('rclpy', 'torch')])"

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert output.strip() == "[]"
