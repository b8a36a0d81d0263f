"""Towers against timm's own whole-network forward passes, on random weights."""

import pytest
import torch

from mfuser_ros.errors import CheckpointError, ConfigurationError
from mfuser_ros.network import torchvision_mend
from mfuser_ros.network.config import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD, SMALL, TowerConfig
from mfuser_ros.network.mobilenet import MobileNetV2Tower, load_mobilenet
from mfuser_ros.network.towers import build_tower

torchvision_mend.mend()

import timm  # noqa: E402  # imports torchvision, hence after the mend

TINY_VIT = {"img_size": 60, "embed_dim": 24, "depth": 3, "num_heads": 2}
DINO = TowerConfig(
    layout="dinov2", model="vit_large_patch14_dinov2", options=TINY_VIT, mean=IMAGENET_MEAN, std=IMAGENET_STD
)
EVA = TowerConfig(
    layout="eva02",
    model="eva02_large_patch14_clip_336",
    options={**TINY_VIT, "num_classes": 28, "ref_feat_shape": (3, 3)},
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
CLIP = TowerConfig(
    layout="clip",
    model="vit_large_patch14_clip_quickgelu_336",
    options={**TINY_VIT, "num_classes": 28},
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
SIGLIP = TowerConfig(
    layout="siglip",
    model="vit_large_patch16_siglip_384",
    options={**TINY_VIT, "patch_size": 14, "num_classes": 0, "act_layer": "gelu_tanh"},
    mean=HALF,
    std=HALF,
)
WIDTHS = (16, 24, 32, 64, 96, 160, 320)


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(2, 3, 60, 60, generator=torch.Generator().manual_seed(0)) * 255


@torch.no_grad()
def randomise(network: torch.nn.Module) -> torch.nn.Module:
    """Every parameter and running statistic at ordinary size, so that no path hides behind a zero."""
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.ndim == 1:
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2 + (0.0 if name.endswith("bias") else 1.0))
        elif value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) / max(1, value[0].numel()) ** 0.5)
    return network.eval()


def run_all(tower, picture):
    state = tower.embed(picture)
    for index in range(len(tower.widths)):
        state = tower.stage(index, state)
    return state


@pytest.mark.parametrize("config", [DINO, EVA, SIGLIP], ids=["dinov2", "eva02", "siglip"])
@torch.no_grad()
def test_transformer_run_block_by_block_equals_timms_forward(config, picture):
    tower = build_tower(config)
    randomise(tower.net)
    mean, std = torch.tensor(config.mean), torch.tensor(config.std)
    normalised = ((picture.permute(0, 2, 3, 1) - mean) / std).permute(0, 3, 1, 2)

    tokens = tower.tokens(run_all(tower, picture))

    torch.testing.assert_close(tower.final_norm(tokens), tower.net.forward_features(normalised), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_clip_equals_timms_forward_with_the_class_embedding_added_twice(picture):
    tower = build_tower(CLIP)
    randomise(tower.net)
    normalised = tower.normalise(picture)

    tokens = tower.final_norm(tower.tokens(run_all(tower, picture)))

    tower.net.cls_token.mul_(2)  # timm adds it once
    torch.testing.assert_close(tokens, tower.net.forward_features(normalised), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tower.to_text_space(tokens), tokens @ tower.net.head.weight.T, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_global_token_of_siglip_is_timms_and_the_grid_has_embeddings_of_its_own():
    tower = build_tower(SIGLIP)
    theirs = timm.create_model(SIGLIP.model, **SIGLIP.options).attn_pool
    ours = randomise(tower.pool)
    names = {
        "latent": ours.probe,
        "proj.weight": ours.attention.out_proj.weight,
        "proj.bias": ours.attention.out_proj.bias,
    }
    names |= {f"norm.{part}": ours.layernorm.get_parameter(part) for part in ("weight", "bias")}
    names |= {f"mlp.{name}": value for name, value in ours.mlp.named_parameters()}
    for part in ("weight", "bias"):
        stacked = ours.attention.get_parameter(f"in_proj_{part}")
        names |= {f"q.{part}": stacked[:24], f"kv.{part}": stacked[24:]}
    theirs.load_state_dict(names)
    tokens = torch.randn(2, 16, 24, generator=torch.Generator().manual_seed(2))

    embeddings = tower.to_text_space(tokens)

    assert embeddings.shape == (2, 1 + 16, 24)
    torch.testing.assert_close(embeddings[:, 0], theirs(tokens), atol=1e-5, rtol=1e-5)
    theirs.latent_len, theirs.pool = 16, ""  # timm's head, asked by the tokens of the first picture
    theirs.latent = torch.nn.Parameter(tokens[:1])
    torch.testing.assert_close(embeddings[:1, 1:], theirs(tokens[:1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [DINO, CLIP], ids=["dinov2", "clip"])
@torch.no_grad()
def test_tower_that_resizes_its_positions_takes_pictures_of_any_size(config):
    tower = build_tower(config)
    state = run_all(tower, torch.rand(1, 3, 29, 90) * 255)
    assert state.shape == (1, 1 + 2 * 6, 24)
    grid = tower.grid(state, (29, 90))
    assert grid.shape == (1, 24, 2, 6)
    torch.testing.assert_close(grid[0, :, 1, 3], state[0, 1 + 6 + 3])


def test_tower_without_a_map_to_text_space_says_so():
    tower = build_tower(DINO)
    assert not tower.text_space
    with pytest.raises(ConfigurationError, match="DinoV2Tower: has no map to text space"):
        tower.to_text_space(torch.zeros(1, 17, 24))


@torch.no_grad()
def test_eva_rotation_table_is_the_published_one():
    tower = build_tower(EVA)
    # 12 channels of a head: 3 frequencies for the row angle, each twice, then 3 for the column angle; grid 4 seen as 3
    frequency = 10000.0 ** (-torch.arange(3) / 3)
    coordinate = torch.arange(4) / 4 * 3
    angle = (coordinate[:, None] * frequency).repeat_interleave(2, dim=1)  # (4, 6)
    rows, columns = angle[:, None].expand(4, 4, 6), angle[None].expand(4, 4, 6)
    expected = torch.cat([rows, columns], dim=2).reshape(16, 12)

    sine, cosine = tower.net.rope.get_embed().tensor_split(2, dim=-1)

    torch.testing.assert_close(sine, expected.sin())
    torch.testing.assert_close(cosine, expected.cos())


@torch.no_grad()
def test_folded_mobilenet_equals_the_unfolded_network_after_every_group(picture):
    reference = randomise(timm.create_model("mobilenetv2_100", output_stride=16, pad_type="same"))
    tower = build_tower(SMALL.vfm)
    load_mobilenet(tower, reference.state_dict())

    expected = reference.bn1(reference.conv_stem(picture / 127.5 - 1))
    state = tower.embed(picture)
    torch.testing.assert_close(state, expected, atol=1e-4, rtol=1e-4)
    for index, group in enumerate(reference.blocks):
        expected = group(expected)
        state = tower.stage(index, state)
        torch.testing.assert_close(state, expected, atol=1e-4, rtol=1e-4)
    assert state.abs().max() > 0.01


def test_folded_mobilenet_has_only_kernels_and_biases_of_convolutions():
    tower = build_tower(SMALL.vfm)

    assert not [module for module in tower.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    convolutions = [name for name, module in tower.named_modules() if isinstance(module, torch.nn.Conv2d)]
    assert set(tower.state_dict()) == {f"{name}.{part}" for name in convolutions for part in ("weight", "bias")}
    assert len(convolutions) == 1 + 2 + 16 * 3  # stem, the first group without expansion, sixteen inverted residuals


@torch.no_grad()
def test_mobilenet_pads_strided_layers_at_the_right_and_bottom_only():
    tower = build_tower(SMALL.vfm)
    tower.net.conv_stem.weight.zero_()
    tower.net.conv_stem.weight[:, 0, 0, 0] = 1.0  # each output cell shows the pixel under the kernel's first corner
    picture = torch.full((1, 3, 8, 8), 127.5)
    picture[0, 0, 2, 4] = 255.0  # becomes 1 after x / 127.5 - 1; all else is 0

    embedded = tower.embed(picture)

    assert embedded[0, 0].nonzero().tolist() == [[1, 2]]  # padding at the left or top would put it nowhere


@pytest.mark.parametrize(
    "config", [DINO, EVA, CLIP, SIGLIP, SMALL.vfm], ids=["dinov2", "eva02", "clip", "siglip", "mobilenetv2"]
)
@torch.no_grad()
def test_tokens_go_back_into_the_state(config, picture):
    tower = build_tower(config)
    state = tower.stage(0, tower.embed(picture))
    tokens = tower.tokens(state)

    torch.testing.assert_close(tower.with_tokens(state, tokens), state, atol=0, rtol=0)
    changed = tower.with_tokens(state, tokens + 1)
    torch.testing.assert_close(tower.tokens(changed), tokens + 1, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("config", "grid", "class_tokens"),
    [(DINO, (4, 4), 1), (EVA, (4, 4), 1), (CLIP, (4, 4), 1), (SIGLIP, (4, 4), 0), (SMALL.vfm, (30, 20), 0)],
    ids=["dinov2", "eva02", "clip", "siglip", "mobilenetv2"],
)
@torch.no_grad()
def test_grid_is_the_tokens_row_by_row_without_the_class_token(config, grid, class_tokens):
    tower = build_tower(config)
    size = (60, 40) if config is SMALL.vfm else (60, 60)
    state = tower.stage(0, tower.embed(torch.rand(1, 3, *size) * 255))

    tokens = tower.tokens(state)

    assert tower.class_token == bool(class_tokens)
    assert tokens.shape == (1, class_tokens + grid[0] * grid[1], tower.widths[0])
    assert tower.grid(state).shape == (1, tower.widths[0], *grid)
    torch.testing.assert_close(tower.grid(state)[0, :, 1, 2], tokens[0, class_tokens + grid[1] + 2])


@torch.no_grad()
def test_mobilenet_widths_are_the_channels_of_its_groups():
    tower = build_tower(SMALL.vfm)
    assert tower.widths == WIDTHS
    state = tower.embed(torch.rand(1, 3, 64, 32) * 255)
    sides = []
    for index, width in enumerate(WIDTHS):
        state = tower.stage(index, state)
        assert state.shape[1] == width
        sides.append(state.shape[2])
    assert sides == [32, 16, 8, 4, 4, 4, 4]  # output stride 16


def segmentation_weights() -> dict[str, torch.Tensor]:
    network = timm.create_model("mobilenetv2_100", num_classes=0)
    weights = {f"backbone.{key}": value for key, value in network.state_dict().items() if "num_batches" not in key}
    return weights | {"head.classifier.weight": torch.zeros(2, 3)}


def test_mobilenet_weights_of_a_segmentation_network_load_by_their_prefix():
    weights = segmentation_weights()
    tower = build_tower(SMALL.vfm)
    load_mobilenet(tower, weights)
    stem = weights["backbone.conv_stem.weight"] / (1 + 1e-5) ** 0.5  # a fresh BatchNorm divides by sqrt(1 + eps)
    torch.testing.assert_close(tower.state_dict()["net.conv_stem.weight"], stem)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda weights: weights.pop("backbone.blocks.3.1.bn2.running_var"), "blocks.3.1.bn2.running_var: missing"),
        (lambda weights: weights.update({"backbone.blocks.9.weight": torch.zeros(1)}), "blocks.9.weight: unknown"),
        (lambda weights: weights.update({"backbone.bn1.bias": torch.zeros(7)}), r"bn1.bias: has shape \(7,\)"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_mobilenet_refuses_weights_of_another_network(spoil, named):
    weights = segmentation_weights()
    spoil(weights)
    with pytest.raises(CheckpointError, match=named):
        load_mobilenet(build_tower(SMALL.vfm), weights)


def test_statistics_of_the_input_are_not_weights():
    tower = build_tower(DINO)
    assert not {"mean", "std"} & set(tower.state_dict())
    torch.testing.assert_close(tower.mean.flatten(), torch.tensor(IMAGENET_MEAN))


def test_half_precision_tower_takes_a_float_picture(picture):
    tower = build_tower(SMALL.vfm).to(torch.bfloat16)
    assert isinstance(tower, MobileNetV2Tower)
    assert tower.embed(picture).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "config",
    [
        TowerConfig(layout="dinov2", model="no_such_network", mean=HALF, std=HALF),
        TowerConfig(layout="dinov2", model="vit_large_patch14_dinov2", options={"colour": 1}, mean=HALF, std=HALF),
        TowerConfig(layout="dinov2", model="vit_small_patch14_reg4_dinov2", options=TINY_VIT, mean=HALF, std=HALF),
    ],
    ids=["name", "option", "registers"],
)
def test_tower_that_cannot_be_built_names_the_model(config):
    with pytest.raises(ConfigurationError, match=config.model):
        build_tower(config)
