"""Picture files as RGB arrays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mfuser_ros.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""File names that are taken for pictures, in lower case."""


def read_picture(path: str | Path) -> np.ndarray:
    """Decode a picture file, whatever its name says, turned upright as its EXIF data asks.

    Returns:
        uint8 RGB (H, W, 3); grey becomes three equal channels, transparency is dropped, 16 bits become 8.

    Raises:
        InputError: the file cannot be read or does not decode; the text names it.
    """
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    try:
        bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    except cv2.error as error:  # a header that states an absurd size
        raise InputError(f"{path}: does not decode as a picture ({error.err}): give a whole JPEG or PNG") from error
    if bgr is None:
        raise InputError(f"{path}: does not decode as a picture: give a whole JPEG or PNG")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def find_pictures(folder: Path) -> list[Path]:
    """Picture files of a folder and the folders in it, sorted by path; hidden ones are left out.

    Raises:
        InputError: there is none.
    """
    found = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and file.is_file()
    )
    if not found:
        raise InputError(f"{folder}: no pictures in this folder ({', '.join(SUFFIXES)}): give another one")
    return found
