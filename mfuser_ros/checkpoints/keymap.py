"""Names of weights in published checkpoints, and what we call them.

A layout is a table: each published name matches one pattern, which says our name, or is dropped for a stated reason.
A name that no pattern matches is an error: nothing is left out silently.

Our name may end in a mark: ``@q``, ``@k`` and ``@v`` (or ``@q`` and ``@kv``) are the parts of one matrix or bias,
stacked in this order; ``@T`` is a matrix that we keep the other way round.

Source: the state dicts of devinxzhang/MFuser; names are facts, no code is taken.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

from mfuser_ros.errors import CheckpointError

Table = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Layout:
    """How one published variant names its weights. The first pattern that matches a whole name counts."""

    sign: str  # a name that this variant alone has
    renamed: Table  # pattern, our name
    dropped: Table  # pattern, why it is not needed


@dataclass(frozen=True)
class KeyMap:
    """What becomes of each name of a state dict."""

    renamed: dict[str, str]  # published name -> ours, perhaps with a mark
    dropped: dict[str, str]  # published name -> reason


_FUSION: Table = (
    (r"backbone\.dinov2\.(.+)", r"vfm.net.\1"),
    (r"backbone\.adapter\.(\d+)\.conv1d_([xz])\.(.+)", r"fusion.\1.mvfuser.conv_\2.\3"),
    (r"backbone\.adapter\.(\d+)\.(.+)", r"fusion.\1.mvfuser.\2"),
    (r"backbone\.fpn1\.(.+)", r"neck.up4.\1"),
    (r"backbone\.fpn2\.(.+)", r"neck.up2.\1"),
)

_EVA02_TOWER: Table = (
    (r"backbone\.blocks\.(\d+)\.attn\.([qv])_bias", r"vlm.net.blocks.\1.attn.\2_proj.bias"),
    (r"backbone\.blocks\.(\d+)\.attn\.inner_attn_ln\.(.+)", r"vlm.net.blocks.\1.attn.norm.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w1\.(.+)", r"vlm.net.blocks.\1.mlp.fc1_g.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w2\.(.+)", r"vlm.net.blocks.\1.mlp.fc1_x.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w3\.(.+)", r"vlm.net.blocks.\1.mlp.fc2.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.ffn_ln\.(.+)", r"vlm.net.blocks.\1.mlp.norm.\2"),
    (r"backbone\.(cls_token|pos_embed|(?:patch_embed|blocks|norm|head)\..+)", r"vlm.net.\1"),
)

_RESBLOCK = r"backbone\.transformer\.resblocks\.(\d+)"

_CLIP_TOWER: Table = (
    (r"backbone\.adapter_proj1\.(\d+)\.(.+)", r"fusion.\1.reduce_vfm.\2"),
    (r"backbone\.adapter_proj2\.(\d+)\.(.+)", r"fusion.\1.expand_vfm.\2"),
    (r"backbone\.adapter_proj3\.(.+)", r"joint.\1"),
    (r"backbone\.class_embedding", r"vlm.net.cls_token"),
    (r"backbone\.positional_embedding", r"vlm.net.pos_embed"),
    (r"backbone\.conv1\.weight", r"vlm.net.patch_embed.proj.weight"),
    (r"backbone\.ln_pre\.(.+)", r"vlm.net.norm_pre.\1"),
    (_RESBLOCK + r"\.ln_([12])\.(.+)", r"vlm.net.blocks.\1.norm\2.\3"),
    (_RESBLOCK + r"\.attn\.in_proj_(weight|bias)", r"vlm.net.blocks.\1.attn.qkv.\2"),
    (_RESBLOCK + r"\.attn\.out_proj\.(.+)", r"vlm.net.blocks.\1.attn.proj.\2"),
    (_RESBLOCK + r"\.mlp\.c_fc\.(.+)", r"vlm.net.blocks.\1.mlp.fc1.\2"),
    (_RESBLOCK + r"\.mlp\.c_proj\.(.+)", r"vlm.net.blocks.\1.mlp.fc2.\2"),
    (r"backbone\.ln_post\.(.+)", r"vlm.net.norm.\1"),
    (r"backbone\.proj", r"vlm.net.head.weight@T"),
)

_SIGLIP_LAYER = r"backbone\.encoder\.layers\.(\d+)"

_SIGLIP_TOWER: Table = (
    (r"backbone\.embeddings\.patch_embedding\.(.+)", r"vlm.net.patch_embed.proj.\1"),
    (r"backbone\.embeddings\.position_embedding\.weight", r"vlm.net.pos_embed"),
    (_SIGLIP_LAYER + r"\.layer_norm([12])\.(.+)", r"vlm.net.blocks.\1.norm\2.\3"),
    (_SIGLIP_LAYER + r"\.self_attn\.([qkv])_proj\.(.+)", r"vlm.net.blocks.\1.attn.qkv.\3@\2"),
    (_SIGLIP_LAYER + r"\.self_attn\.out_proj\.(.+)", r"vlm.net.blocks.\1.attn.proj.\2"),
    (_SIGLIP_LAYER + r"\.(mlp\.fc[12]\..+)", r"vlm.net.blocks.\1.\2"),
    (r"backbone\.post_layernorm\.(.+)", r"vlm.net.norm.\1"),
    (r"backbone\.head\.(.+)", r"vlm.pool.\1"),
)

_SIGLIP_TEXT_LAYER = r"text_encoder\.encoder\.layers\.(\d+)"

_SIGLIP_TEXT: Table = (
    (r"contexts", r"text.contexts"),
    (r"text_encoder\.embeddings\.token_embedding\.weight", r"text.token_embedding.weight"),
    (r"text_encoder\.embeddings\.position_embedding\.weight", r"text.positional_embedding"),
    (_SIGLIP_TEXT_LAYER + r"\.layer_norm([12])\.(.+)", r"text.transformer.resblocks.\1.ln_\2.\3"),
    (
        _SIGLIP_TEXT_LAYER + r"\.self_attn\.([qkv])_proj\.(weight|bias)",
        r"text.transformer.resblocks.\1.attn.in_proj_\3@\2",
    ),
    (_SIGLIP_TEXT_LAYER + r"\.self_attn\.out_proj\.(.+)", r"text.transformer.resblocks.\1.attn.out_proj.\2"),
    (_SIGLIP_TEXT_LAYER + r"\.mlp\.fc1\.(.+)", r"text.transformer.resblocks.\1.mlp.c_fc.\2"),
    (_SIGLIP_TEXT_LAYER + r"\.mlp\.fc2\.(.+)", r"text.transformer.resblocks.\1.mlp.c_proj.\2"),
    (r"text_encoder\.final_layer_norm\.(.+)", r"text.ln_final.\1"),
    (r"text_encoder\.head\.(.+)", r"text.head.\1"),
)

_CLIP_TEXT: Table = (
    (r"contexts", r"text.contexts"),
    (r"text_encoder\.(.+)", r"text.\1"),
)

_ENHANCER: Table = (
    (r"gamma", r"enhancer.gamma"),
    (r"context_decoder\.decoder\.(\d+)\.cross_attn\.conv1d_([xz])\.(.+)", r"enhancer.layers.\1.mvfuser.conv_\2.\3"),
    (r"context_decoder\.decoder\.(\d+)\.cross_attn\.(.+)", r"enhancer.layers.\1.mvfuser.\2"),
    (r"context_decoder\.decoder\.(\d+)\.(.+)", r"enhancer.layers.\1.\2"),
    (r"context_decoder\.((?:memory_proj|text_proj|out_proj)\..+)", r"enhancer.\1"),
)

_PIXEL_LAYER = r"decode_head\.pixel_decoder\.encoder\.layers\.(\d+)"
_QUERY_LAYER = r"decode_head\.transformer_decoder\.layers\.(\d+)"

_HEAD: Table = (
    (r"decode_head\.pixel_decoder\.input_convs\.(\d+)\.conv\.(.+)", r"pixel_decoder.input_convs.\1.conv.\2"),
    (r"decode_head\.pixel_decoder\.input_convs\.(\d+)\.gn\.(.+)", r"pixel_decoder.input_convs.\1.norm.\2"),
    (r"decode_head\.pixel_decoder\.(lateral|output)_convs\.0\.conv\.(.+)", r"pixel_decoder.\1_conv.conv.\2"),
    (r"decode_head\.pixel_decoder\.(lateral|output)_convs\.0\.gn\.(.+)", r"pixel_decoder.\1_conv.norm.\2"),
    (_PIXEL_LAYER + r"\.attentions\.0\.(.+)", r"pixel_decoder.layers.\1.deformable.\2"),
    (_PIXEL_LAYER + r"\.attentions\.1\.attn\.(.+)", r"pixel_decoder.layers.\1.text_attention.\2"),
    (_PIXEL_LAYER + r"\.ffns\.0\.layers\.0\.0\.(.+)", r"pixel_decoder.layers.\1.ffn.0.\2"),
    (_PIXEL_LAYER + r"\.ffns\.0\.layers\.1\.(.+)", r"pixel_decoder.layers.\1.ffn.2.\2"),
    (_PIXEL_LAYER + r"\.(norms\..+)", r"pixel_decoder.layers.\1.\2"),
    (r"decode_head\.pixel_decoder\.encoder\.(post_norm\..+)", r"pixel_decoder.\1"),
    (
        r"decode_head\.pixel_decoder\.((?:level_encoding|mask_feature|text_proj|text_pos_embed)\..+)",
        r"pixel_decoder.\1",
    ),
    (_QUERY_LAYER + r"\.attentions\.0\.attn\.(.+)", r"mask_decoder.layers.\1.cross_attention.\2"),
    (_QUERY_LAYER + r"\.attentions\.1\.attn\.(.+)", r"mask_decoder.layers.\1.self_attention.\2"),
    (_QUERY_LAYER + r"\.ffns\.0\.layers\.0\.0\.(.+)", r"mask_decoder.layers.\1.ffn.0.\2"),
    (_QUERY_LAYER + r"\.ffns\.0\.layers\.1\.(.+)", r"mask_decoder.layers.\1.ffn.2.\2"),
    (_QUERY_LAYER + r"\.(norms\..+)", r"mask_decoder.layers.\1.\2"),
    (r"decode_head\.transformer_decoder\.(post_norm\..+)", r"mask_decoder.\1"),
    (r"decode_head\.cls_embed\.(.+)", r"mask_decoder.class_embed.\1"),
    (r"decode_head\.((?:query_embed|level_embed|text_proj|mask_embed)\..+)", r"mask_decoder.\1"),
)

_MASK_TOKEN = (r"backbone\.dinov2\.mask_token", "DINOv2 used it in its own training alone")

EVA02_L = Layout(
    sign="backbone.patch_embed.proj.weight",
    renamed=_FUSION + _EVA02_TOWER + _CLIP_TEXT + _ENHANCER + _HEAD,
    dropped=(
        (r"random_text", "nothing reads it"),
        _MASK_TOKEN,
        (r"backbone\.(?:blocks\.\d+\.attn\.)?rope\.freqs_(?:cos|sin)", "rotary table, computed from the grid"),
    ),
)

CLIP_L = Layout(
    sign="backbone.conv1.weight",
    renamed=_FUSION + _CLIP_TOWER + _CLIP_TEXT + _ENHANCER + _HEAD,
    dropped=(_MASK_TOKEN,),
)

SIGLIP_L = Layout(
    sign="backbone.embeddings.patch_embedding.weight",
    renamed=_FUSION + _SIGLIP_TOWER + _SIGLIP_TEXT + _ENHANCER + _HEAD,
    dropped=(
        _MASK_TOKEN,
        (r"backbone\.adapter_proj(?:[12]\.\d+|3)\.(?:weight|bias)", "the published SigLIP network never uses it"),
    ),
)

LAYOUTS = {"eva02-l": EVA02_L, "clip-l": CLIP_L, "siglip-l": SIGLIP_L}  # by the name of the preset


def find_variant(names: Container[str], *, source: str) -> str:
    """Name of the preset that a published state dict belongs to.

    Args:
        names: as published, without a leading ``module.``.
        source: where the names come from, for the message.

    Raises:
        CheckpointError: no variant's sign is among the names.
    """
    for preset, layout in LAYOUTS.items():
        if layout.sign in names:
            return preset
    signs = " nor ".join(layout.sign for layout in LAYOUTS.values())
    raise CheckpointError(f"{source}: is no published MFuser (it has no {signs}): give one, or state the preset")


def map_keys(names: Iterable[str], layout: Layout, *, source: str) -> KeyMap:
    """Find our name, or the reason to drop it, for each name of a published state dict.

    Args:
        names: as published, without a leading ``module.``.
        layout: of the variant.
        source: where the names come from, for the message.

    Raises:
        CheckpointError: a name that the layout does not know, or two names that mean the same weight.
    """
    renamed: dict[str, str] = {}
    taken: dict[str, str] = {}
    dropped: dict[str, str] = {}
    for name in names:
        # before the renames: some of these names would match a rename, too
        reason = next((reason for pattern, reason in layout.dropped if re.fullmatch(pattern, name)), None)
        if reason is not None:
            dropped[name] = reason
            continue
        ours = next((m.expand(new) for old, new in layout.renamed if (m := re.fullmatch(old, name))), None)
        if ours is None:
            raise CheckpointError(f"{source}: {name} is no weight of this preset: choose the one that it belongs to")
        if ours in taken:
            raise CheckpointError(f"{source}: {name} and {taken[ours]} are the same weight: the file is no MFuser")
        renamed[name] = ours
        taken[ours] = name
    return KeyMap(renamed, dropped)
