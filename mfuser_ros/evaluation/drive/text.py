"""Text on arrays, in the font that Pillow carries."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@cache
def text_width(text: str, size: int) -> int:
    """Width of `text` in pixels at a font size in pixels."""
    return int(np.ceil(_font(size).getlength(text)))


@cache
def _stencil(text: str, size: int) -> np.ndarray:
    """Coverage of the text, float32 (h, w, 1), 0..1."""
    width = max(1, text_width(text, size))
    stencil = Image.new("L", (width, round(size * 1.35)))
    ImageDraw.Draw(stencil).text((0, 0), text, font=_font(size), fill=255)
    return np.asarray(stencil, np.float32)[..., None] / 255


def draw_text(
    picture: np.ndarray, text: str, corner: tuple[int, int], *, size: int, colour: tuple[int, int, int]
) -> None:
    """Write into `picture`.

    Args:
        picture: uint8 RGB (H, W, 3), changed in place; what would lie outside is cut off.
        text: one line.
        corner: column and row of the text's top left corner, pixels.
        size: of the font, pixels.
        colour: RGB.
    """
    stencil = _stencil(text, size)
    x, y = corner
    region = picture[max(y, 0) : y + stencil.shape[0], max(x, 0) : x + stencil.shape[1]]
    if not region.size:
        return
    cover = stencil[max(-y, 0) :, max(-x, 0) :][: region.shape[0], : region.shape[1]]
    region[:] = np.rint(region * (1 - cover) + np.array(colour, np.float32) * cover).astype(np.uint8)
