"""The Segmenter: sizes, unknown pixels, batches, bad input. The weights are random; what they say matters not here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import mfuser_ros
from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import ModelCard, save_model
from mfuser_ros.errors import (
    CheckpointError,
    ConfigurationError,
    DeviceError,
    InferenceError,
    InputError,
)
from mfuser_ros.inference import Segmenter
from mfuser_ros.network.config import SMALL
from mfuser_ros.network.model import MFuser


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    card = ModelCard(
        name="random",
        architecture=SMALL,
        vocabulary=vocabulary.load().names,
        threshold=0.07,
        temperature=0.1,  # random scores are nearly equal; this spreads them
        licence="none",
        provenance="random weights, seed 1",
    )
    save_model(MFuser(SMALL), card, path)
    return path


@pytest.fixture(scope="module")
def segmenter(weights) -> Segmenter:
    return mfuser_ros.load(weights, device="cpu", input_size=(96, 160))


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)


def test_result_has_the_size_of_the_picture_and_the_promised_types(segmenter, picture):
    result = segmenter(picture)

    for array in (result.mask, result.confidence, result.labels):
        assert array.shape == (120, 200)
        assert array.dtype == np.uint8
    assert result.labels.max() < 19
    assert result.overlay().shape == picture.shape


def test_pixels_below_the_threshold_are_255_and_all_others_keep_their_label(segmenter, picture):
    segmenter.threshold = 0.0
    free = segmenter(picture)
    middle = float(np.median(segmenter.probabilities(picture, (120, 200)).max(0)))
    segmenter.threshold = middle
    try:
        strict = segmenter(picture)
    finally:
        segmenter.threshold = segmenter.default_threshold

    assert np.array_equal(free.mask, free.labels)
    unknown = strict.mask == 255
    assert 0.2 < unknown.mean() < 0.8
    assert np.array_equal(strict.mask[~unknown], strict.labels[~unknown])
    assert (strict.confidence[unknown] / 255 <= middle + 1 / 255).all()
    assert (strict.confidence[~unknown] / 255 >= middle - 1 / 255).all()


def test_threshold_of_the_model_holds_until_another_is_asked_for(weights, segmenter):
    assert segmenter.threshold == segmenter.default_threshold == pytest.approx(0.07)
    assert mfuser_ros.load(weights, device="cpu", threshold=0).threshold == 0


def test_a_list_gives_a_list_in_its_order_with_the_results_of_single_pictures(segmenter, picture):
    other = picture[::-1, :150].copy()

    together = segmenter([picture, other])

    for result, alone in zip(together, (segmenter(picture), segmenter(other)), strict=True):
        assert (result.labels == alone.labels).mean() > 0.999  # sums in another order may turn a tie
        assert np.abs(result.confidence.astype(int) - alone.confidence).max() <= 1


def test_same_picture_twice_gives_the_same_bits(segmenter, picture):
    first, second = segmenter(picture), segmenter(picture)

    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.confidence, second.confidence)


def test_probabilities_of_all_classes_add_up_to_one(segmenter, picture):
    probability = segmenter.probabilities(picture, (60, 100))

    assert probability.shape == (19, 60, 100)
    np.testing.assert_allclose(probability.sum(0), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((720, 1280), (352, 640)), ((360, 480), (480, 640)), ((1024, 2048), (320, 640)), ((1280, 720), (640, 352))],
)
def test_whole_picture_is_stretched_to_a_long_side_of_640(weights, size, expected):
    assert mfuser_ros.load(weights, device="cpu").input_size_for(*size) == expected


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((10, 10, 3), np.float32), "float32"),
        (np.zeros((10, 10), np.uint8), r"\(10, 10\)"),
        (np.zeros((10, 10, 4), np.uint8), r"\(10, 10, 4\)"),
        (np.zeros((0, 10, 3), np.uint8), r"\(0, 10, 3\)"),
    ],
)
def test_anything_but_a_rgb_picture_is_refused_by_name(segmenter, bad, words):
    with pytest.raises(InputError, match=words):
        segmenter(bad)


def test_scores_that_are_not_numbers_are_an_error_not_a_mask(weights, picture):
    broken = mfuser_ros.load(weights, device="cpu", input_size=(64, 64))
    with torch.no_grad():
        broken.model.mask_decoder.mask_embed[4].weight.fill_(float("nan"))

    with pytest.raises(InferenceError, match="not numbers"):
        broken(picture)


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "cuda:x"])
def test_a_device_that_is_not_there_is_refused_by_name(weights, name):
    with pytest.raises(DeviceError, match=name):
        mfuser_ros.load(weights, device=name)


@pytest.mark.parametrize(
    "setting",
    [
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"input_size": (100, 160)},
        {"input_size": (32, 64)},
        {"precision": "float16"},
        {"precision": "int8"},
    ],
)
def test_settings_that_cannot_work_are_refused(weights, setting):
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        mfuser_ros.load(weights, device="cpu", **setting)


def test_colours_of_a_vocabulary_file_are_those_of_the_masks(weights, tmp_path):
    content = vocabulary.load().model_dump(mode="json")
    content["classes"][0]["colour"] = [1, 2, 3]
    recoloured = tmp_path / "recoloured.yaml"
    recoloured.write_text(yaml.safe_dump(content))

    assert mfuser_ros.load(weights, device="cpu", vocabulary=recoloured).vocabulary[0].colour == (1, 2, 3)


def test_missing_model_is_refused_by_name():
    with pytest.raises(CheckpointError, match="no_such_model"):
        mfuser_ros.load("no_such_model")
