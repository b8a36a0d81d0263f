"""Image and CompressedImage messages become RGB arrays here, and nowhere else.

Needs no ROS: a message is anything with the fields of `sensor_msgs/Image` or `sensor_msgs/CompressedImage`, its `data`
an `array.array` (rclpy), `bytes` (mcap) or a read-only numpy array (rosbags).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from mfuser_ros.errors import InputError

MAX_SIDE = 8192
"""Longest side of a picture in pixels; a longer one is refused before anything is allocated."""

MAX_PIXELS = 64_000_000

Kind = Literal["bad_image", "encoding", "too_large"]


class ImageError(InputError):
    """An image message cannot be used; `kind` says what is wrong with it.

    `bad_image`: the message contradicts itself or does not decode. `encoding`: sound, but no colour or grey picture.
    `too_large`: over `MAX_SIDE` or `MAX_PIXELS`.
    """

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Encoding(NamedTuple):
    channels: int  # samples per pixel in memory
    sample_bytes: int
    to_rgb: int | None  # cv2 conversion code; None where the samples are RGB already

    @property
    def pixel_bytes(self) -> int:
        return self.channels * self.sample_bytes


_PLAIN = {
    "rgb8": _Encoding(3, 1, None),
    "bgr8": _Encoding(3, 1, cv2.COLOR_BGR2RGB),
    "rgba8": _Encoding(4, 1, cv2.COLOR_RGBA2RGB),
    "bgra8": _Encoding(4, 1, cv2.COLOR_BGRA2RGB),
    "mono8": _Encoding(1, 1, cv2.COLOR_GRAY2RGB),
}
# OpenCV names a mosaic by the second row's second and third pixels, ROS by the first row's first two.
_BY_BRIDGE = {
    "bayer_rggb8": _Encoding(1, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _Encoding(1, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _Encoding(1, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _Encoding(1, 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": _Encoding(2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Encoding(2, 1, cv2.COLOR_YUV2RGB_YUY2),
    "mono16": _Encoding(1, 2, cv2.COLOR_GRAY2RGB),
    "rgb16": _Encoding(3, 2, None),
    "bgr16": _Encoding(3, 2, cv2.COLOR_BGR2RGB),
}
# The value is the name that every release of cv_bridge knows.
_ALIASES = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2", "8UC3": "bgr8"}
_ENCODINGS = _PLAIN | _BY_BRIDGE
_REFUSED = {
    "16UC1": "may be a depth image",
    "32FC1": "may be a depth image",
    "8UC1": "may be a label image",
}
ACCEPTED = tuple(_ENCODINGS) + tuple(_ALIASES)
"""Names of the encodings that `to_rgb` converts."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def to_rgb(message: Any) -> np.ndarray:  # Any: rclpy, rosbags and mcap messages have no common type
    """The picture of an Image or CompressedImage message.

    Args:
        message: has `encoding` (Image) or `format` (CompressedImage) and the other fields of that type.

    Returns:
        (height, width, 3) uint8 RGB, C-contiguous. For rgb8 without row padding it is a view of the message's data, and
        read-only where that is.

    Raises:
        ImageError: the message cannot be used.
    """
    check(message)
    return _raw_to_rgb(message) if hasattr(message, "encoding") else _compressed_to_rgb(message)


def check(message: Any) -> None:  # Any: see to_rgb
    """Look at everything but the pixels of an Image or CompressedImage message.

    Raises:
        ImageError: `to_rgb` would refuse the message for its encoding, format, size, step or length.
    """
    if hasattr(message, "encoding"):
        _check_raw(message)
    else:
        _check_format(message.format)
        if not len(message.data):
            raise ImageError("bad_image", "CompressedImage without data: check the camera driver")


def encoding_of(message: Any) -> str:  # Any: see to_rgb
    """`encoding` of an Image, `format` of a CompressedImage."""
    return str(message.encoding if hasattr(message, "encoding") else message.format)


def _check_raw(message: Any) -> None:
    width, height, step = int(message.width), int(message.height), int(message.step)
    data_bytes = memoryview(message.data).nbytes
    if width <= 0 or height <= 0 or not data_bytes:
        raise ImageError("bad_image", f"image of {width}x{height} with {data_bytes} bytes: check the camera driver")
    _check_size(width, height)
    name = _ALIASES.get(message.encoding, message.encoding)
    if name not in _ENCODINGS:
        reason = f" ({_REFUSED[name]})" if name in _REFUSED else ""
        raise ImageError("encoding", f"encoding '{name}' is not accepted{reason}: publish one of {', '.join(ACCEPTED)}")
    row_bytes = width * _ENCODINGS[name].pixel_bytes
    if step < row_bytes:
        raise ImageError(
            "bad_image", f"step {step} is less than a row of {width} {name} pixels ({row_bytes}): fix the driver"
        )
    needed = step * (height - 1) + row_bytes
    if data_bytes < needed:
        raise ImageError(
            "bad_image", f"data has {data_bytes} bytes, {width}x{height} {name} takes {needed}: fix the driver"
        )
    if name.startswith("yuv422") and width % 2:
        raise ImageError(
            "bad_image", f"{name} of odd width {width}, but pairs of pixels share a colour: fix the driver"
        )


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(
            "too_large",
            f"image of {width}x{height}: at most {MAX_SIDE} pixels a side and {MAX_PIXELS // 10**6} megapixels, "
            "publish a smaller one",
        )


def _raw_to_rgb(message: Any) -> np.ndarray:
    name = _ALIASES.get(message.encoding, message.encoding)
    encoding = _ENCODINGS[name]
    if name in _BY_BRIDGE and (bridge := cv_bridge_conversion()) is not None:
        return bridge(message, name)
    pixels = _pixels(message, encoding)
    if encoding.sample_bytes == 2:
        # cv2 multiplies and rounds in one pass; 65535 / 257 = 255
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257).reshape(pixels.shape)
    if encoding.to_rgb is None:
        return np.ascontiguousarray(pixels)
    return np.asarray(cv2.cvtColor(pixels, encoding.to_rgb))


def _pixels(message: Any, encoding: _Encoding) -> np.ndarray:
    """View of the data without row padding, (height, width[, channels]), 16-bit samples in this machine's order."""
    height, width = int(message.height), int(message.width)
    sample = np.dtype("u1" if encoding.sample_bytes == 1 else ">u2" if message.is_bigendian else "<u2")
    view: np.ndarray = np.ndarray(
        (height, width, encoding.channels),
        sample,
        buffer=message.data,
        strides=(int(message.step), encoding.pixel_bytes, encoding.sample_bytes),
    )
    if encoding.channels == 1:
        view = view[:, :, 0]
    # OpenCV misreads rows whose step is no multiple of a sample
    return view if encoding.sample_bytes == 1 else view.astype(np.uint16)


@cache
def cv_bridge_conversion() -> Callable[[Any, str], np.ndarray] | None:
    """Conversion (message, encoding name) -> RGB through cv_bridge; None where it cannot be imported."""
    try:
        from cv_bridge import CvBridge  # noqa: PLC0415  optional, comes with a ROS installation
        from cv_bridge.boost import cv_bridge_boost  # noqa: F401, PLC0415  compiled, may not fit this numpy
    except (ImportError, AttributeError):
        return None
    bridge = CvBridge()

    def convert(message: Any, name: str) -> np.ndarray:
        fields = ("height", "width", "step", "is_bigendian", "data")
        renamed = SimpleNamespace(encoding=name, **{field: getattr(message, field) for field in fields})
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(renamed, "rgb8"))

    return convert


def _check_format(text: str) -> None:
    """Refuse what the `format` of a CompressedImage says is no picture; the codec in it is never trusted.

    Form: `ORIGINAL; CODEC compressed [PIXELS]`. Many writers put the codec only, or nothing.
    """
    if "compressedDepth" in text:
        raise ImageError("encoding", f"format '{text}' is a depth image: subscribe to the colour image of the camera")
    original, separator, codec = (part.strip() for part in text.partition(";"))
    if not separator:
        return
    if original.startswith("bayer_"):
        pixels = codec.partition("compressed")[2].strip()
        if not pixels or pixels.startswith("bayer_"):
            raise ImageError("encoding", f"format '{text}' is a compressed mosaic: compress the debayered image")
    elif original != "8UC3" and re.fullmatch(r"\d+[USF]C\d+", original):
        reason = _REFUSED.get(original, "no colour or grey picture")
        raise ImageError("encoding", f"format '{text}' is not accepted ({reason}): compress a colour or grey image")


def _compressed_to_rgb(message: Any) -> np.ndarray:
    data = np.frombuffer(message.data, np.uint8)
    encoded = data.tobytes()
    if encoded.startswith(b"\xff\xd8"):
        width, height = _jpeg_size(encoded)
    elif encoded.startswith(_PNG_SIGNATURE):
        width, height = _png_size(encoded, message.format)
    else:
        raise ImageError("bad_image", f"CompressedImage of {len(encoded)} bytes is no JPEG or PNG: fix the driver")
    if width <= 0 or height <= 0:
        raise ImageError("bad_image", f"compressed image of {width}x{height}: fix the driver")
    _check_size(width, height)
    # the EXIF orientation would turn the picture away from its camera_info
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        bgr = None
    if bgr is None or bgr.shape[:2] != (height, width):
        raise ImageError("bad_image", f"compressed image of {len(encoded)} bytes does not decode: check the transport")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr))


def _jpeg_size(encoded: bytes) -> tuple[int, int]:
    """Width and height from the frame header of a whole JPEG (ITU-T T.81, annex B)."""
    size = None
    position = 2
    while position + 4 <= len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", encoded, position + 2)
        is_frame = 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}
        if is_frame and position + 9 <= len(encoded):
            height, width = struct.unpack_from(">HH", encoded, position + 5)
            size = width, height
        position += 2 + length
        if marker == 0xDA:
            break
    # OpenCV fills what a truncated file lacks with grey and says nothing. Coded data holds no FF before D9.
    if size is None or encoded.find(b"\xff\xd9", position) < 0:
        raise ImageError("bad_image", f"JPEG of {len(encoded)} bytes is truncated or broken: check the transport")
    return size


def _png_size(encoded: bytes, text: str) -> tuple[int, int]:
    """Width and height from the header of a whole PNG (ISO/IEC 15948, 11.2.2)."""
    if len(encoded) < 33 or encoded[12:16] != b"IHDR" or encoded.rfind(b"IEND") < 33:
        raise ImageError("bad_image", f"PNG of {len(encoded)} bytes is truncated or broken: check the transport")
    width, height, bit_depth, colour_type = struct.unpack_from(">IIBB", encoded, 16)
    if bit_depth == 16 and colour_type == 0 and not text.startswith("mono16"):
        raise ImageError("encoding", f"16-bit grey PNG of format '{text}' may be a depth image: say mono16; png")
    return width, height
