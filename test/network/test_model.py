"""The whole network at a small size."""

from __future__ import annotations

import pytest
import torch

from mfuser_ros.network.config import PRESETS, SMALL
from mfuser_ros.network.mask_decoder import Prediction, assemble
from mfuser_ros.network.model import MFuser


@pytest.fixture(scope="module")
def small() -> MFuser:
    torch.manual_seed(0)
    return MFuser(SMALL).eval()


def test_small_predicts_19_masks_at_a_quarter_of_the_picture(small):
    with torch.inference_mode():
        prediction = small.predict(torch.rand(2, 3, 96, 128) * 255)

    assert prediction.class_logits.shape == (2, 19, 20)
    assert prediction.mask_logits.shape == (2, 19, 24, 32)


def test_last_prediction_of_training_is_that_of_inference(small):
    pictures = torch.rand(1, 3, 96, 64) * 255
    with torch.no_grad():
        output = small(pictures)
        alone = small.predict(pictures)

    assert len(output.predictions) == 1 + SMALL.head.query_layers
    torch.testing.assert_close(output.predictions[-1].mask_logits, alone.mask_logits)
    torch.testing.assert_close(output.predictions[-1].class_logits, alone.class_logits)


def test_every_trained_part_gets_a_gradient(small):
    network = MFuser(SMALL)
    output = network(torch.rand(1, 3, 64, 96) * 255)

    loss = sum(p.class_logits.square().mean() + p.mask_logits.square().mean() for p in output.predictions)
    (loss + output.score_map.square().mean()).backward()

    silent = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert silent == []


def test_inference_before_training_leaves_no_inference_tensor_behind(small):
    pictures = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        small.predict(pictures)  # fills the caches of positions

    small(pictures).predictions[-1].mask_logits.sum().backward()


def test_scores_are_class_probability_times_mask():
    # two queries, two classes and no-object; each query is sure of its class
    class_logits = torch.tensor([[[50.0, 0, 0], [0, 50.0, 0]]])
    mask_logits = torch.tensor([[[[0.0]], [[100.0]]]])

    scores = assemble(Prediction(class_logits, mask_logits))

    torch.testing.assert_close(scores, torch.tensor([[[[0.5]], [[1.0]]]]))


@pytest.mark.parametrize(("scale", "bias"), [(1 / 0.07, 0.0), (float(torch.tensor(2.3).exp()), -1.7)])
def test_score_map_of_training_is_scaled_as_the_architecture_says(small, scale, bias):
    network = MFuser(SMALL.model_copy(update={"score_scale": scale, "score_bias": bias})).eval()
    network.load_state_dict(small.state_dict())
    with torch.no_grad():
        output = network(torch.rand(1, 3, 64, 96) * 255)
    assert output.score_map.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(output.score_logits, output.score_map * scale + bias)


def test_temperature_of_the_score_map_is_the_published_one():
    assert 1 / SMALL.score_scale == pytest.approx(0.07)
    assert SMALL.score_bias == 0


def test_presets_are_named_as_they_are_called():
    assert [preset.name for preset in PRESETS.values()] == list(PRESETS) == ["eva02-l", "clip-l", "siglip-l", "small"]
