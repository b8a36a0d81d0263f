"""Files of data sets as arrays, with errors that name the file and what is wrong with it."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from mfuser_ros.errors import DatasetError

_PNG = b"\x89PNG"
_JPEG = b"\xff\xd8"


def check_whole(content: bytes, name: str) -> None:
    """Refuse a PNG or JPEG that was cut off: decoders fill the rest with grey and say nothing.

    Raises:
        DatasetError: the end of the file is missing.
    """
    if content.startswith(_PNG):
        whole = b"IEND" in content[-16:]
    elif content.startswith(_JPEG):  # some cameras write a few bytes after the end mark
        whole = content.rfind(b"\xff\xd9") > len(content) // 2
    else:
        return
    if not whole:
        raise DatasetError(f"{name}: is cut off after {len(content)} bytes: copy the set again")


def picture(content: bytes, name: str) -> np.ndarray:
    """Decode a photo: uint8 RGB (H, W, 3), as stored, not turned.

    Raises:
        DatasetError: it is cut off or does not decode; the text starts with `name`.
    """
    check_whole(content, name)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # labels are drawn on the pixels as stored
    bgr = _decoded(content, flags, name)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def index(content: bytes, name: str, *, hint: str = "") -> np.ndarray:
    """Decode ids from a grey or a palette picture: uint8 (H, W); of a palette the index counts, not its colour.

    Args:
        content: of the file.
        name: of the file.
        hint: what to do where the picture holds colours.

    Raises:
        DatasetError: it is cut off, does not decode, or holds colours instead of ids.
    """
    check_whole(content, name)
    try:
        image = Image.open(io.BytesIO(content))
        ids = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: broken PNG chunks
        raise DatasetError(f"{name}: does not decode ({error}): copy the set again") from error
    if ids.ndim != 2:
        mend = hint or "give the files with ids"
        raise DatasetError(f"{name}: is a colour map ({image.mode}), not ids: {mend}")
    if ids.dtype != np.uint8:
        raise DatasetError(f"{name}: is no 8-bit picture of ids but {image.mode}: {hint or 'convert it'}")
    return ids


def red16(content: bytes, name: str, *, hint: str = "") -> np.ndarray:
    """Decode ids from the first channel (red) of a 16-bit picture, as SYNTHIA keeps them: uint16 (H, W).

    Args:
        content: of the file.
        name: of the file.
        hint: what to do where the picture is of another kind.

    Raises:
        DatasetError: it is cut off, does not decode, or is no 16-bit picture with several channels.
    """
    check_whole(content, name)
    pixels = _decoded(content, cv2.IMREAD_UNCHANGED, name)
    if pixels.dtype != np.uint16 or pixels.ndim != 3:
        kind = f"{pixels.dtype} {pixels.shape}"
        mend = hint or "give the files with ids"
        raise DatasetError(f"{name}: is {kind}, not a 16-bit colour picture with ids in red: {mend}")
    return pixels[..., 2]  # OpenCV gives blue, green, red


def colours(content: bytes, name: str) -> np.ndarray:
    """Decode a colour-coded label: uint32 (H, W), 0xRRGGBB.

    Raises:
        DatasetError: it is cut off or does not decode.
    """
    rgb = picture(content, name).astype(np.uint32)
    return np.asarray(rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2])


def _decoded(content: bytes, flags: int, name: str) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error as error:  # a header that states an absurd size
        raise DatasetError(f"{name}: does not decode ({error.err}): copy the set again") from error
    if pixels is None:
        raise DatasetError(f"{name}: does not decode: copy the set again")
    return np.asarray(pixels)
