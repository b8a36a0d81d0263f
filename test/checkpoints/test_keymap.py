"""Published names: the whole list of the full-size network, and what is refused."""

import gzip
from pathlib import Path

import pytest
import torch

from mfuser_ros.checkpoints.convert import gather, to_ours
from mfuser_ros.checkpoints.keymap import CLIP_L, EVA02_L, LAYOUTS, SIGLIP_L, find_variant, map_keys
from mfuser_ros.errors import CheckpointError
from mfuser_ros.network import config
from mfuser_ros.network.model import MFuser

GOLDEN = Path(__file__).parents[1] / "golden"
# names in the list, and trained elements of the specification less those that no forward reaches
SIZES = {
    "eva02-l": (1708, 118_646_125 - 19 * 768),
    "clip-l": (1539, 170_059_629),
    "siglip-l": (1884, 170_390_125 - 51_430_400),
}


def read_list(preset: str) -> dict[str, torch.Tensor]:
    """The state dict of a published network: names and shapes, no numbers."""
    tensors = {}
    for line in gzip.decompress((GOLDEN / f"keys_{preset}_full.txt.gz").read_bytes()).decode().splitlines():
        if line.startswith("#"):
            continue
        name, shape, dtype, _ = line.split("\t")
        sides = [] if shape == "scalar" else [int(side) for side in shape.split("x")]
        tensors[name] = torch.empty(sides, dtype=getattr(torch, dtype), device="meta")
    return tensors


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return read_list("eva02-l")


@pytest.mark.parametrize("preset", SIZES)
def test_every_published_weight_lands_on_one_of_ours_with_its_shape(preset):
    published = read_list(preset)
    names, trained = SIZES[preset]
    assert len(published) == names
    assert find_variant(published, source="published") == preset
    with torch.device("meta"):
        network = MFuser(config.PRESETS[preset])

    ours = to_ours(published, config.PRESETS[preset], LAYOUTS[preset], source="published")

    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in network.state_dict().items()
    }
    frozen = [parameter for name, parameter in network.named_parameters() if is_frozen(name)]
    total = sum(parameter.numel() for parameter in network.parameters())
    assert total - sum(parameter.numel() for parameter in frozen) == trained


def is_frozen(name: str) -> bool:
    """Towers and the text tower without the contexts, as published."""
    return name.startswith(("vfm.", "vlm.", "text.")) and name != "text.contexts"


def test_dropped_names_are_the_unused_ones(published):
    dropped = map_keys(published, EVA02_L, source="published").dropped
    rotary = {name for name in dropped if "rope.freqs" in name}
    assert len(rotary) == 2 * 25
    assert set(dropped) - rotary == {"random_text", "backbone.dinov2.mask_token"}


def test_adapters_that_siglip_never_uses_are_dropped_and_those_of_clip_are_kept():
    idle = {name for name in read_list("siglip-l") if ".adapter_proj" in name}
    assert len(idle) == 2 * 49
    dropped = map_keys(read_list("siglip-l"), SIGLIP_L, source="published").dropped
    assert set(dropped) == idle | {"backbone.dinov2.mask_token"}
    assert {dropped[name] for name in idle} == {"the published SigLIP network never uses it"}
    assert set(map_keys(read_list("clip-l"), CLIP_L, source="published").dropped) == {"backbone.dinov2.mask_token"}


def test_query_key_and_value_are_stacked_in_this_order():
    layer = "backbone.encoder.layers.3.self_attn"
    weights = {f"{layer}.{part}_proj.bias": torch.full((2,), value) for part, value in (("k", 1), ("v", 2), ("q", 0))}
    keys = map_keys(weights, SIGLIP_L, source="published")
    stacked = gather(weights, keys.renamed, source="published")
    assert {name: tensor.tolist() for name, tensor in stacked.items()} == {
        "vlm.net.blocks.3.attn.qkv.bias": [0, 0, 1, 1, 2, 2]
    }


def test_missing_part_of_a_stacked_matrix_is_named():
    weights = {f"backbone.encoder.layers.3.self_attn.{part}_proj.bias": torch.zeros(2) for part in "qv"}
    keys = map_keys(weights, SIGLIP_L, source="published")
    with pytest.raises(CheckpointError, match=r"published: part k of vlm\.net\.blocks\.3\.attn\.qkv\.bias is missing"):
        gather(weights, keys.renamed, source="published")


def test_state_dict_without_the_sign_of_a_variant_is_refused():
    with pytest.raises(CheckpointError, match=r"published: is no published MFuser .*conv1\.weight"):
        find_variant({"contexts": 0, "backbone.cls_token": 0}, source="published")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.blocks.7.attn.v_bias", "vlm.net.blocks.7.attn.v_proj.bias"),
        ("backbone.blocks.23.mlp.w1.weight", "vlm.net.blocks.23.mlp.fc1_g.weight"),  # w1 is the gate
        ("backbone.blocks.23.mlp.w2.weight", "vlm.net.blocks.23.mlp.fc1_x.weight"),
        ("backbone.adapter.11.conv1d_z.weight", "fusion.11.mvfuser.conv_z.weight"),
        ("context_decoder.decoder.0.cross_attn.A_log", "enhancer.layers.0.mvfuser.A_log"),
        (
            "decode_head.transformer_decoder.layers.8.attentions.0.attn.in_proj_bias",
            "mask_decoder.layers.8.cross_attention.in_proj_bias",
        ),
        (
            "decode_head.pixel_decoder.encoder.layers.5.ffns.0.layers.1.weight",
            "pixel_decoder.layers.5.ffn.2.weight",
        ),
    ],
)
def test_name_of_same_shape_goes_to_its_own_place(theirs, ours):
    assert map_keys([theirs], EVA02_L, source="published").renamed == {theirs: ours}


@pytest.mark.parametrize(
    "name",
    [
        "backbone.conv1.weight",  # of the CLIP variant
        "backbone.adapter_proj1.0.weight",
        "backbone.embeddings.patch_embedding.weight",  # of SigLIP
        "decode_head.predictor.weight",
        "optimizer",
        "contexts2",
    ],
)
def test_name_of_another_network_is_refused(name):
    with pytest.raises(CheckpointError, match=rf"published: {name} is no weight of this preset"):
        map_keys(["contexts", name], EVA02_L, source="published")


def spoiled(published, **changes) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in (published | changes).items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"gamma": None}, r"the weight that we call enhancer\.gamma is missing"),
        ({"gamma": torch.empty(3)}, r"gamma has shape \(3,\), eva02-l needs \(768,\)"),
        (
            {"backbone.adapter.24.D": torch.empty(512)},
            r"backbone\.adapter\.24\.D is no weight of eva02-l",
        ),
        (
            {"backbone.blocks.0.attn.k_bias": torch.empty(1024)},
            r"backbone\.blocks\.0\.attn\.k_bias is no weight of eva02-l",
        ),
    ],
    ids=["missing", "shape", "a block too many", "unknown leaf"],
)
def test_state_dict_that_is_not_whole_names_the_published_weight(published, changes, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        to_ours(spoiled(published, **changes), config.EVA02_L, EVA02_L, source="published")


def test_counter_of_batches_may_be_absent(published):
    without = spoiled(published, **{"backbone.fpn1.1.num_batches_tracked": None})
    ours = to_ours(without, config.EVA02_L, EVA02_L, source="published")
    assert ours["neck.up4.1.num_batches_tracked"].tolist() == 0
