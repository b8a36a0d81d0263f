"""Enlarging class by class gives what enlarging everything at once gives."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from mfuser_ros.inference.enlarge import best_class, probabilities


def test_running_maximum_equals_argmax_of_all_enlarged_classes():
    generator = torch.Generator().manual_seed(3)
    small = (4 * torch.randn(19, 22, 40, generator=generator)).softmax(0)

    labels, confidence = best_class(small, 180, 321)

    large = F.interpolate(small[None], (180, 321), mode="bilinear", align_corners=False)[0]
    expected, ids = large.max(0)
    np.testing.assert_allclose(confidence, expected.numpy(), atol=1e-5)
    top_two = large.topk(2, 0).values
    clear = (top_two[0] - top_two[1]).numpy() > 1e-4  # elsewhere rounding may decide
    assert clear.mean() > 0.99
    assert np.array_equal(labels[clear], ids.numpy()[clear])


def test_no_class_is_left_out_where_most_of_the_probability_is_unknown():
    small = torch.tensor([[0.6, 0.01], [0.05, 0.02]]).view(2, 1, 2)  # at the second place 0.97 is of no class here

    labels, confidence = best_class(small, 1, 2, least_sum=0.03)

    assert labels.tolist() == [[0, 1]]
    np.testing.assert_allclose(confidence, [[0.6, 0.02]])


def test_probabilities_follow_the_stated_formula():
    scores = torch.tensor([0.9, 0.09, 0.01]).view(1, 3, 1, 1)

    torch.testing.assert_close(probabilities(scores, 1.0), scores)
    # T = 2: square roots 0.9487, 0.3, 0.1 over their sum 1.3487
    expected = torch.tensor([0.70342, 0.22244, 0.07415]).view(1, 3, 1, 1)
    torch.testing.assert_close(probabilities(scores, 2.0), expected, atol=1e-4, rtol=0)


def test_pixel_without_any_score_has_no_confidence_rather_than_a_nan():
    probability = probabilities(torch.zeros(1, 3, 2, 2), 1.0)

    assert torch.equal(probability, torch.zeros_like(probability))
