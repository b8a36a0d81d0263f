"""Our network, or a part of it, at the sizes of a golden and with its weights taken through the key map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mfuser_ros.checkpoints.convert import gather, to_ours
from mfuser_ros.checkpoints.golden import Golden
from mfuser_ros.checkpoints.keymap import LAYOUTS, Layout, map_keys
from mfuser_ros.errors import CheckpointError
from mfuser_ros.network import config
from mfuser_ros.network.config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Architecture,
    ClipText,
    EnhancerConfig,
    EvaText,
    FusionConfig,
    HeadConfig,
    PyramidNeck,
    SiglipText,
    TowerConfig,
    WindowInput,
)
from mfuser_ros.network.mask_decoder import MaskDecoder
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.pixel_decoder import PixelDecoder
from mfuser_ros.network.text import EvaTextEncoder, SiglipTextEncoder, TextEncoder

_PRESETS = {"eva": "eva02-l", "clip": "clip-l", "siglip": "siglip-l"}  # what the goldens call the variants

# prefixes of a part in a whole published checkpoint, and in ours
FUSER = ("backbone.adapter.0.", "fusion.0.mvfuser.")
ENHANCER = ("context_decoder.", "enhancer.")
DEFORMABLE = ("decode_head.pixel_decoder.encoder.layers.0.attentions.0.", "pixel_decoder.layers.0.deformable.")
PIXEL_DECODER = ("decode_head.pixel_decoder.", "pixel_decoder.")
HEAD = ("decode_head.", "")
TEXT = ("", "text.")


def fill(
    module: nn.Module,
    golden: Golden,
    prefixes: tuple[str, str],
    *,
    given: Mapping[str, Tensor] | None = None,
    only: str = "",
) -> dict[str, str]:
    """Load a golden's weights into a part of the network, through the key map of the whole.

    Args:
        module: the part.
        golden: holds the weights by the names that the published part gives them.
        prefixes: of the part in a whole published checkpoint, and in ours.
        given: weights by our names that the golden does not hold.
        only: take the weights with this prefix.

    Returns:
        The golden's names -> ours, both within the part.
    """
    theirs, ours = prefixes
    weights = {theirs + key: value for key, value in golden.weights.items() if key.startswith(only)}
    source = f"golden {golden.name}"
    keys = map_keys(weights, layout(golden), source=source).renamed
    state = {new.removeprefix(ours): tensor for new, tensor in gather(weights, keys, source=source).items()}
    try:
        module.load_state_dict({**state, **(given or {})})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"golden {golden.name}: its weights do not fit its sizes ({reason})") from error
    return {old.removeprefix(theirs): new.removeprefix(ours) for old, new in keys.items()}


def layout(golden: Golden) -> Layout:
    """The published names of a golden's variant; those of EVA02 if it states none, as parts that all variants share."""
    return LAYOUTS[_PRESETS[golden.sizes.get("variant", "eva")]]


def head(golden: Golden, classes: int) -> tuple[PixelDecoder, MaskDecoder]:
    """Both decoders at the sizes of a golden of the head, with random weights."""
    sizes = golden.sizes
    config = HeadConfig(
        width=sizes["feat_channels"],
        heads=sizes["num_heads"],
        pixel_hidden=sizes["encoder_ffn"],
        query_hidden=sizes.get("decoder_ffn", sizes["encoder_ffn"]),
        pixel_layers=sizes["encoder_layers"],
        query_layers=sizes.get("decoder_layers", 1),
        norm_groups=sizes["GN_groups"],
    )
    text_width = sizes["text_in_dim"]
    return PixelDecoder(config, sizes["in_channels"], text_width, classes), MaskDecoder(config, text_width, classes)


def text_config(sizes: Mapping[str, Any]) -> EvaText | ClipText | SiglipText:
    """The text tower of a golden."""
    shared = {
        "vocabulary": sizes["vocab"],
        "heads": sizes["text_heads"],
        "layers": sizes["text_layers"],
        "contexts": sizes["text_context_length"] - sizes["context_length"],
        "tokens": sizes["context_length"],
    }
    if sizes["variant"] == "siglip":
        return SiglipText(width=sizes["text_hidden"], hidden=sizes["intermediate"], **shared)
    return (ClipText if sizes["variant"] == "clip" else EvaText)(width=sizes["text_width"], **shared)


def text_encoder(golden: Golden) -> TextEncoder:
    """The text tower of a golden, with its weights, contexts and token ids."""
    sizes = golden.sizes
    config, ids = text_config(sizes), golden["in.texts"].tolist()
    encoder: TextEncoder
    if isinstance(config, SiglipText):
        encoder = SiglipTextEncoder(config, text_width(sizes), ids)
    else:
        encoder = EvaTextEncoder(config, text_width(sizes), ids)
    fill(encoder.eval(), golden, TEXT, given={"contexts": golden["in.contexts"]}, only="text_encoder.")
    return encoder


def text_width(sizes: Mapping[str, Any]) -> int:
    """Width of the space that text and picture share in a golden."""
    return int(sizes[{"eva": "embed_dim", "clip": "output_dim", "siglip": "hidden"}[sizes["variant"]]])


def mfuser(golden: Golden) -> MFuser:
    """The whole network of a tiny golden, with its weights."""
    built = architecture(golden)
    ids = golden["in.texts"].tolist() if "in.texts" in golden.tensors else None
    network = MFuser(built, ids).eval()
    network.load_state_dict(to_ours(golden.weights, built, layout(golden), source=f"golden {golden.name}"))
    return network


def architecture(golden: Golden) -> Architecture:
    """The architecture that a golden of a whole network was made with."""
    sizes = golden.sizes
    dino, decoders = sizes["dino"], sizes["head"]
    enhancer = golden.weights["context_decoder.memory_proj.1.weight"]
    return Architecture(
        name=golden.name,
        classes=decoders["things"] + decoders["stuff"],
        vfm=TowerConfig(
            layout="dinov2",
            model="vit_large_patch14_dinov2",
            options={
                "img_size": dino["image"],
                "patch_size": dino["patch"],
                "embed_dim": dino["dim"],
                "num_heads": dino["heads"],
                "depth": sizes["blocks"],
            },
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        vlm=_VLMS[sizes["variant"]](sizes),
        fusion=FusionConfig(stages=tuple(range(sizes["blocks"])), width=None, vfm_bridge=sizes["variant"] == "clip"),
        neck=PyramidNeck(taps=tuple(sizes["out_indices"])),
        text=text_config(sizes),
        text_width=text_width(sizes),
        # SigLIP's scale and bias come with its original weights; the other towers have a temperature
        score_scale=math.exp(sizes["logit_scale_attr"]) if "logit_scale_attr" in sizes else 1 / sizes.get("tau", 0.07),
        score_bias=sizes.get("logit_bias_attr", 0.0),
        enhancer=EnhancerConfig(width=enhancer.shape[0]),
        head=HeadConfig(
            width=decoders["C"],
            heads=decoders["heads"],
            pixel_hidden=decoders["enc_ffn"],
            query_hidden=decoders["dec_ffn"],
            pixel_layers=decoders["enc_layers"],
            query_layers=decoders["dec_layers"],
            norm_groups=decoders["groups"],
        ),
        input=WindowInput(crop=sizes["image"], stride=sizes["image"]),
    )


def _resized(preset: Architecture, sizes: Mapping[str, Any], options: Mapping[str, Any]) -> TowerConfig:
    """The VLM of a preset at the sizes of a golden."""
    shared = {"img_size": sizes["image"], "patch_size": sizes["patch"], "depth": sizes["blocks"]}
    return preset.vlm.model_copy(update={"options": {**preset.vlm.options, **shared, **options}})


def _eva02(sizes: Mapping[str, Any]) -> TowerConfig:
    options = {
        "embed_dim": sizes["width"],
        "num_heads": sizes["width"] // sizes["head_width"],
        "num_classes": sizes["embed_dim"],
        "mlp_ratio": (sizes["mlp_hidden"] + 0.5) / sizes["width"],  # timm rounds the product down
        "ref_feat_shape": [sizes["rope"]["pt_seq_len"]] * 2,
    }
    return _resized(config.EVA02_L, sizes, options)


def _clip(sizes: Mapping[str, Any]) -> TowerConfig:
    options = {"embed_dim": sizes["width"], "num_heads": sizes["heads"], "num_classes": sizes["output_dim"]}
    return _resized(config.CLIP_L, sizes, options)


def _siglip(sizes: Mapping[str, Any]) -> TowerConfig:
    options = {
        "embed_dim": sizes["hidden"],
        "num_heads": sizes["heads"],
        "mlp_ratio": (sizes["intermediate"] + 0.5) / sizes["hidden"],
    }
    return _resized(config.SIGLIP_L, sizes, options)


_VLMS = {"eva": _eva02, "clip": _clip, "siglip": _siglip}
