"""Goldens of what happens before a network runs: the import of original encoders, and the ids of class names."""

from __future__ import annotations

import math

import torch

from mfuser_ros.checkpoints.convert import translate
from mfuser_ros.checkpoints.golden import Golden
from mfuser_ros.checkpoints.keymap import map_keys
from mfuser_ros.checkpoints.original_names import DINOV2, ORIGINALS, published_names
from mfuser_ros.checkpoints.originals import fit_to, score_of
from mfuser_ros.checkpoints.replay import Computed
from mfuser_ros.network.config import EVA02_L
from mfuser_ros.network.text import tokenize
from mfuser_ros.network.towers import build_tower

_ENCODERS = {
    "unit_weight_import_dino": DINOV2,
    "unit_weight_import_eva": ORIGINALS["eva02-l"],
    "unit_weight_import_clip": ORIGINALS["clip-l"],
    "unit_weight_import_siglip": ORIGINALS["siglip-l"],
}


@torch.no_grad()
def weight_import(golden: Golden) -> Computed:
    """`unit_weight_import_*`: tensors of an encoder's file, resized and cut for the network that was recorded."""
    original = next(found for name, found in _ENCODERS.items() if golden.name.startswith(name))
    weights = {key[3:]: golden[key] for key in golden.keys("in.")}
    if "patch_kernel" in weights:  # what these goldens call it; DINOv2's own name stands in the table
        weights["patch_embed.proj.weight"] = weights.pop("patch_kernel")
    names, _ = published_names(weights, original)
    keys = map_keys(names, original.layout, source=f"golden {golden.name}")
    results = {}  # our name -> key of what was recorded, by the name in the file or in a published checkpoint
    for published, name in names.items():
        shown = "patch_kernel" if name == "patch_embed.proj.weight" else name
        results[keys.renamed[published]] = next(
            key for key in (f"out.{published}", f"out.{shown}") if key in golden.tensors
        )
    expected = {}
    for ours, result in results.items():
        shape = golden[result].shape
        flat = ours.endswith("net.pos_embed") and len(shape) == 2  # published without a batch axis
        expected[ours] = torch.empty((1, *shape) if flat else shape, device="meta")
    fitted = translate(
        {published: weights[name] for published, name in names.items()},
        keys,
        expected,
        preset=original.preset,
        source=f"golden {golden.name}",
        fit=fit_to(original.mode, class_token=original.class_token),
    )
    computed = {result: fitted[ours].reshape(golden[result].shape) for ours, result in results.items()}
    return computed | _rotary(golden) | _score(golden, weights)


def token_ids(golden: Golden) -> Computed:
    """`unit_tokenize_clip`: the class names at the length that the text tower reads, and a sentence at its own."""
    names, sentence = golden.manifest["class_names"], golden.manifest["extra_sentence"]
    long = torch.tensor(tokenize([*names, sentence], 77))
    return {
        "out.tokens5": torch.tensor(tokenize(names, golden.sizes["context_length"])),
        "out.tokens77_prefix16": long[:, :16],
    }


def _rotary(golden: Golden) -> Computed:
    """EVA02's rotary tables, which are built for the grid and not taken from the file."""
    if "out.rope.freqs_cos" not in golden.tensors:
        return {}
    cells, channels = golden["out.rope.freqs_cos"].shape
    seen = math.isqrt(golden["in.visual.pos_embed"].shape[1] - 1)  # side of the grid that the angles span
    options = {
        **EVA02_L.vlm.options,
        "img_size": 14 * math.isqrt(cells),
        "embed_dim": 2 * channels,
        "num_heads": 2,
        "depth": 1,
        "ref_feat_shape": [seen, seen],
    }
    tower = build_tower(EVA02_L.vlm.model_copy(update={"options": options}))
    sine, cosine = tower.net.rope.get_embed().tensor_split(2, dim=-1)
    return {"out.rope.freqs_sin": sine, "out.rope.freqs_cos": cosine}


def _score(golden: Golden, weights: Computed) -> Computed:
    """SigLIP's scale, as a logarithm, and bias."""
    score = score_of(weights)
    if not score:
        return {}
    shape = golden["out.backbone.logit_scale"].shape
    return {
        "out.backbone.logit_scale": torch.tensor(math.log(score["score_scale"])).reshape(shape),
        "out.backbone.logit_bias": torch.tensor(score["score_bias"]).reshape(shape),
    }
