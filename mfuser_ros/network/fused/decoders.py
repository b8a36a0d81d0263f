"""The decoders of a network in fewer products, for inference on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mfuser_ros.network.attention import SharedKeys
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.pixel_decoder import LEVELS


@torch.no_grad()
def fuse_decoders(model: MFuser) -> None:
    """Let attentions that look at the same tokens project keys and values together, in place.

    All layers of the pixel decoder read the same text, and every third one of the query decoder the same level.
    """
    pixels, masks = model.pixel_decoder, model.mask_decoder
    readers: list[Any] = list(pixels.layers)  # which a ModuleList knows as mere modules
    if pixels.reads_text and readers:
        pixels.shared_keys = SharedKeys([layer.text_attention for layer in readers])
    lookers: list[Any] = list(masks.layers)
    levels = [[layer.cross_attention for layer in lookers[level::LEVELS]] for level in range(LEVELS)]
    if all(levels):
        masks.shared_keys = nn.ModuleList(SharedKeys(attentions) for attentions in levels)
