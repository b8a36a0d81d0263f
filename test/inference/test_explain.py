"""What the pictures of a model's features and queries show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import mfuser_ros
from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import ModelCard, rebuild, save_model
from mfuser_ros.checkpoints.golden import read_golden
from mfuser_ros.errors import ConfigurationError, InputError
from mfuser_ros.inference import Segmenter
from mfuser_ros.inference.explain import explain, principal_maps, tower_features
from mfuser_ros.network.config import SMALL, WindowInput
from mfuser_ros.network.model import MFuser

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    card = ModelCard(
        name="random",
        architecture=SMALL,
        vocabulary=vocabulary.load().names,
        threshold=0.07,
        temperature=1.0,
        licence="none",
        provenance="random weights, seed 1",
    )
    save_model(MFuser(SMALL), card, path)
    return path


@pytest.fixture
def segmenter(weights) -> Segmenter:
    return mfuser_ros.load(weights, device="cpu", input_size=(96, 160))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)


def test_two_clusters_of_features_have_two_colours():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 8, generator=generator) * 10
    features = one.view(8, 1, 1).repeat(1, 6, 10)
    features[:, :, 5:] = other.view(8, 1, 1)
    features += 0.01 * torch.randn(features.shape, generator=generator)

    before, after = principal_maps(features, features)

    assert np.array_equal(before, after)
    left, right = before[:, :5, 0].astype(int), before[:, 5:, 0].astype(int)  # red is the first component
    assert left.std() < 3
    assert right.std() < 3
    assert abs(left.mean() - right.mean()) > 240


def test_a_colour_means_the_same_features_before_and_after():
    features = torch.randn(8, 6, 10, generator=torch.Generator().manual_seed(0))

    before, after = principal_maps(features, features.flip(2))

    assert np.array_equal(after, before[:, ::-1])


def test_features_of_one_dimension_are_shown_in_one_colour():
    ramp = torch.arange(60.0).view(1, 6, 10)

    before, _ = principal_maps(torch.cat([ramp, 0 * ramp]), torch.cat([ramp, 0 * ramp]))

    assert np.ptp(before[..., 0]) == 255
    assert (before[..., 1:] == 128).all()  # nothing varies there: rounding is not blown up to colours


def test_fusion_that_adds_nothing_leaves_the_features_as_they_were(segmenter, picture):
    site = segmenter.model.fusion["6"]
    with torch.no_grad():
        for part in (site.expand_vfm, site.expand_vlm):
            part.weight.mul_(100)  # untrained ones add less than a shade
    fused = explain(segmenter, picture)
    with torch.no_grad():
        for part in (site.expand_vfm, site.expand_vlm):
            part.weight.zero_()

    plain = explain(segmenter, picture)

    assert fused.stage == plain.stage == 6
    assert not np.array_equal(fused.vfm_before, fused.vfm_after)
    assert fused.vfm_moved.max() > 0
    assert np.array_equal(plain.vfm_before, plain.vfm_after)
    assert np.array_equal(plain.vlm_before, plain.vlm_after)
    assert plain.vfm_moved.max() == plain.vlm_moved.max() == 0


@torch.inference_mode()
def test_features_of_the_last_stage_are_those_that_the_network_goes_on_with(segmenter, picture):
    batch = segmenter.prepare([picture], (96, 160))
    seen = []
    handle = segmenter.model.fusion["6"].register_forward_hook(lambda _, given, made: seen.append((given, made)))

    segmenter.model.encode(batch)
    handle.remove()
    before, after = tower_features(segmenter.model, batch, 6)

    (given, made), = seen  # fmt: skip
    for tokens, features in zip((*given[0], *made), (*before, *after), strict=True):
        torch.testing.assert_close(features.flatten(1).T, tokens[0])


def test_stage_without_a_fuser_shows_the_same_before_and_after(segmenter, picture):
    seen = explain(segmenter, picture, stage=1)

    assert seen.vfm_before.shape == (24, 40, 3)  # stride 4 of 96 x 160
    assert np.array_equal(seen.vfm_before, seen.vfm_after)


def test_heat_of_a_merged_class_is_the_largest_of_its_members(weights, segmenter, picture):
    entries = [
        {"id": 0, "name": "vehicle", "queries": ["car", "truck"], "colour": [0, 0, 9], "role": "dynamic"},
        {"id": 1, "name": "sky", "queries": ["sky"], "colour": [0, 9, 9], "role": "sky"},
    ]
    merged = mfuser_ros.load(
        weights,
        device="cpu",
        input_size=(96, 160),
        vocabulary=vocabulary.Vocabulary.model_validate({"classes": entries}),
    )

    fine, coarse = explain(segmenter, picture), explain(merged, picture)

    assert fine.heatmaps.shape == (19, 24, 40)
    assert 0 <= fine.heatmaps.min() < fine.heatmaps.max() <= 1
    np.testing.assert_array_equal(coarse.heatmaps, [np.maximum(*fine.heatmaps[[13, 14]]), fine.heatmaps[10]])
    np.testing.assert_array_equal(coarse.presence, [max(fine.presence[[13, 14]]), fine.presence[10]])


@pytest.mark.parametrize("variant", ["eva", "clip", "siglip"])
def test_transformers_show_their_grid_of_patches(variant, picture):
    model = rebuild.mfuser(read_golden(GOLDEN / f"model_{variant}_tiny"))
    names = vocabulary.load().classes[: model.architecture.classes]
    tiny = Segmenter(
        model,
        vocabulary.Vocabulary(classes=names),
        name=variant,
        sha256="",
        device=torch.device("cpu"),
        precision="float32",
        threshold=0,
        default_threshold=0,
        temperature=1,
        input_size=None,
    )

    seen = explain(tiny, picture)

    assert isinstance(model.architecture.input, WindowInput)
    crop = model.architecture.input.crop
    assert seen.vfm_before.shape == (*model.vfm.grid_size(crop, crop), 3)
    assert seen.vlm_after.shape == (*model.vlm.grid_size(crop, crop), 3)
    assert seen.vlm_moved.max() > 0
    assert len(seen.heatmaps) == len(seen.presence) == len(names)


@pytest.mark.parametrize("stage", [-1, 7])
def test_stage_that_the_towers_lack_is_refused(segmenter, picture, stage):
    with pytest.raises(ConfigurationError, match=f"stage {stage}: the towers of random have stages 0 to 6"):
        explain(segmenter, picture, stage)


def test_what_is_no_picture_is_refused(segmenter):
    with pytest.raises(InputError, match="float32"):
        explain(segmenter, np.zeros((10, 10, 3), np.float32))
