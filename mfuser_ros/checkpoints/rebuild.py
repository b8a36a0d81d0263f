"""Our network, or a part of it, at the sizes of a golden and with its weights taken through the key map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mfuser_ros.checkpoints.convert import to_ours
from mfuser_ros.checkpoints.golden import Golden
from mfuser_ros.checkpoints.keymap import EVA02_L, map_keys
from mfuser_ros.errors import CheckpointError
from mfuser_ros.network.config import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Architecture,
    EnhancerConfig,
    EvaText,
    FusionConfig,
    HeadConfig,
    PyramidNeck,
    TowerConfig,
    WindowInput,
)
from mfuser_ros.network.mask_decoder import MaskDecoder
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.pixel_decoder import PixelDecoder

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
    keys = map_keys(weights, EVA02_L, source=f"golden {golden.name}").renamed
    state = {new.removeprefix(ours): weights[old] for old, new in keys.items()}
    try:
        module.load_state_dict({**state, **(given or {})})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"golden {golden.name}: its weights do not fit its sizes ({reason})") from error
    return {old.removeprefix(theirs): new.removeprefix(ours) for old, new in keys.items()}


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


def text_config(sizes: Mapping[str, Any]) -> EvaText:
    """The text tower of a golden of the EVA02 variant."""
    return EvaText(
        vocabulary=sizes["vocab"],
        width=sizes["text_width"],
        heads=sizes["text_heads"],
        layers=sizes["text_layers"],
        contexts=sizes["text_context_length"] - sizes["context_length"],
        tokens=sizes["context_length"],
    )


def mfuser(golden: Golden) -> MFuser:
    """The whole network of a tiny EVA golden, with its weights."""
    architecture = eva_architecture(golden)
    ids = golden["in.texts"].tolist() if "in.texts" in golden.tensors else None
    network = MFuser(architecture, ids).eval()
    network.load_state_dict(to_ours(golden.weights, architecture, EVA02_L, source=f"golden {golden.name}"))
    return network


def eva_architecture(golden: Golden) -> Architecture:
    """The architecture that a golden of the whole EVA02 variant was made with."""
    sizes = golden.sizes
    dino, decoders, rope = sizes["dino"], sizes["head"], sizes["rope"]
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
        vlm=TowerConfig(
            layout="eva02",
            model="eva02_large_patch14_clip_336",
            options={
                "img_size": sizes["image"],
                "patch_size": sizes["patch"],
                "embed_dim": sizes["width"],
                "num_heads": sizes["width"] // sizes["head_width"],
                "depth": sizes["blocks"],
                "num_classes": sizes["embed_dim"],
                "mlp_ratio": (sizes["mlp_hidden"] + 0.5) / sizes["width"],  # timm rounds the product down
                "ref_feat_shape": [rope["pt_seq_len"]] * 2,
            },
            mean=CLIP_MEAN,
            std=CLIP_STD,
        ),
        fusion=FusionConfig(stages=tuple(range(sizes["blocks"])), width=None),
        neck=PyramidNeck(taps=tuple(sizes["out_indices"])),
        text=text_config(sizes),
        text_width=sizes["embed_dim"],
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
