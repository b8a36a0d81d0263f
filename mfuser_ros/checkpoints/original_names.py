"""Names of weights in the files of the original encoders, and what the published checkpoints, or we, call them.

The rules are those of `mfuser_ros.checkpoints.keymap`; names are facts, no code is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mfuser_ros.checkpoints.keymap import LAYOUTS, Layout, Table
from mfuser_ros.errors import CheckpointError

Mode = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Original:
    """How the file of an original encoder names its weights. The first pattern that matches a whole name counts."""

    preset: str  # whose encoder it is
    layout: Layout  # of the names that come out
    sign: str  # a name that comes out of this file alone
    renamed: Table  # pattern, name in the layout
    dropped: Table  # pattern, why it is not needed
    mode: Mode  # in which positions and patch kernels are resized
    class_token: bool  # whether the first position is that of a class token


_SCALE = "temperature of its own training"

# names that are ours already
_OURS = Layout(sign="", renamed=((r"(.+)", r"\1"),), dropped=())

DINOV2 = Original(  # of its authors and of timm; every preset's. Other vision transformers of timm are named alike
    preset="eva02-l",
    layout=LAYOUTS["eva02-l"],
    sign="backbone.dinov2.cls_token",
    renamed=((r"(.+)", r"backbone.dinov2.\1"),),
    dropped=((r"head\..+", "classifier of its own training"),),
    mode="bicubic",
    class_token=True,
)

ORIGINALS = {
    "eva02-l": Original(
        preset="eva02-l",
        layout=LAYOUTS["eva02-l"],
        sign=LAYOUTS["eva02-l"].sign,
        renamed=((r"visual\.(.+)", r"backbone.\1"), (r"text\.(.+)", r"text_encoder.\1")),
        dropped=((r"logit_scale", _SCALE), (r"text\.attn_mask", "causal mask, computed from the length")),
        mode="bicubic",
        class_token=True,
    ),
    "eva02-l of open_clip": Original(
        preset="eva02-l",
        layout=_OURS,
        sign="vlm.net.cls_token",
        renamed=((r"visual\.trunk\.(.+)", r"vlm.net.\1"), (r"(text\..+)", r"\1")),
        dropped=((r"logit_scale", _SCALE),),
        mode="bicubic",
        class_token=True,
    ),
    "clip-l": Original(  # OpenAI's and open_clip's
        preset="clip-l",
        layout=LAYOUTS["clip-l"],
        sign=LAYOUTS["clip-l"].sign,
        renamed=(
            (r"visual\.(.+)", r"backbone.\1"),
            (
                r"((?:transformer|token_embedding|ln_final)\..+|positional_embedding|text_projection)",
                r"text_encoder.\1",
            ),
        ),
        dropped=(
            (r"logit_scale", _SCALE),
            (r"input_resolution|context_length|vocab_size", "a size, not a weight"),
            (r"attn_mask", "causal mask, computed from the length"),
        ),
        mode="bilinear",
        class_token=True,
    ),
    "siglip-l": Original(  # of transformers
        preset="siglip-l",
        layout=LAYOUTS["siglip-l"],
        sign=LAYOUTS["siglip-l"].sign,
        renamed=((r"vision_model\.(.+)", r"backbone.\1"), (r"text_model\.(.+)", r"text_encoder.\1")),
        dropped=(
            (r"logit_(?:scale|bias)", "kept in the architecture, as scale and bias of the score map"),
            (r"(?:vision|text)_model\.embeddings\.position_ids", "counts from 0"),
        ),
        mode="bilinear",
        class_token=False,
    ),
    "siglip-l of open_clip": Original(
        preset="siglip-l",
        layout=_OURS,
        sign="vlm.pool.probe",
        renamed=(
            (r"visual\.trunk\.attn_pool\.latent", r"vlm.pool.probe"),
            (r"visual\.trunk\.attn_pool\.(q|kv)\.(weight|bias)", r"vlm.pool.attention.in_proj_\2@\1"),
            (r"visual\.trunk\.attn_pool\.proj\.(.+)", r"vlm.pool.attention.out_proj.\1"),
            (r"visual\.trunk\.attn_pool\.norm\.(.+)", r"vlm.pool.layernorm.\1"),
            (r"visual\.trunk\.attn_pool\.(mlp\.fc[12]\..+)", r"vlm.pool.\1"),
            (r"visual\.trunk\.(.+)", r"vlm.net.\1"),
            (r"text\.text_projection\.(.+)", r"text.head.\1"),
            (r"(text\..+)", r"\1"),
        ),
        dropped=((r"logit_(?:scale|bias)", "kept in the architecture, as scale and bias of the score map"),),
        mode="bilinear",
        class_token=False,
    ),
}


def find_original(names: Mapping[str, Tensor], *, source: str) -> Original:
    """The VLM that the names of a file belong to.

    Raises:
        CheckpointError: they belong to none.
    """
    for original in ORIGINALS.values():
        published, _ = published_names(names, original)
        if original.sign in published:
            return original
    raise CheckpointError(f"{source}: is neither EVA02-CLIP nor CLIP nor SigLIP by its names: give the VLM's own file")


def published_names(names: Mapping[str, Tensor], original: Original) -> tuple[dict[str, str], dict[str, str]]:
    """What becomes of the names of a file.

    Returns:
        Name in the layout -> that of the file; and that of the file -> why it is dropped. A name that no pattern knows
        is in neither.
    """
    renamed: dict[str, str] = {}
    dropped: dict[str, str] = {}
    for name in names:
        reason = next((reason for pattern, reason in original.dropped if re.fullmatch(pattern, name)), None)
        if reason is not None:
            dropped[name] = reason
            continue
        theirs = next((m.expand(new) for old, new in original.renamed if (m := re.fullmatch(old, name))), None)
        if theirs is not None:
            renamed[theirs] = name
    return renamed, dropped
