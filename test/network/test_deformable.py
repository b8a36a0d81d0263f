"""Both samplers of the deformable attention agree with each other and with values worked by hand."""

from __future__ import annotations

import pytest
import torch

from mfuser_ros.network import deformable
from mfuser_ros.network.deformable import DeformableAttention

SIZES = ((2, 3), (4, 6), (5, 7))


def test_samplers_agree_also_outside_the_picture_and_in_gradients():
    torch.manual_seed(0)
    tokens = sum(h * w for h, w in SIZES)
    values = torch.randn(2, tokens, 4, 8, dtype=torch.float64, requires_grad=True)
    places = (torch.rand(2, tokens, 4, 3, 4, 2, dtype=torch.float64) * 14 - 4).requires_grad_()
    weights = torch.rand(2, tokens, 4, 3, 4, dtype=torch.float64, requires_grad=True)

    by_bag = deformable._sample_by_embedding_bag(values, places, weights, SIZES)
    by_grid = deformable._sample_by_grid(values.float(), places.float(), weights.float(), SIZES)

    torch.testing.assert_close(by_bag.float(), by_grid, rtol=1e-5, atol=1e-5)
    probe = torch.randn_like(by_bag)
    inputs = (values, places, weights)
    for ours, theirs in zip(
        torch.autograd.grad((by_bag * probe).sum(), inputs),
        torch.autograd.grad((by_grid.double() * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((0.0, 0.0), 1.0),  # centre of the first cell
        ((0.5, 0.0), 1.5),  # half-way between 1 and 2
        ((0.5, 0.5), 2.5),  # between 1, 2, 3 and 4
        ((-0.5, 0.0), 0.5),  # half outside, where everything is 0
        ((1.5, 1.0), 2.0),  # half outside at the right of 4
        ((5.0, 0.0), 0.0),
    ],
)
def test_sample_is_bilinear_with_zeros_outside(place, expected):
    values = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)  # a 2x2 level
    places = torch.tensor(place).expand(1, 4, 1, 1, 1, 2)
    weights = torch.ones(1, 4, 1, 1, 1)

    sampled = deformable._sample_by_embedding_bag(values, places, weights, ((2, 2),))

    torch.testing.assert_close(sampled, torch.full((1, 4, 1), expected))


def test_heads_start_by_looking_in_eight_directions():
    attention = DeformableAttention(16, 8)
    bias = attention.sampling_offsets.bias.view(8, 3, 4, 2)

    torch.testing.assert_close(bias[0, 0, :, 0], torch.tensor([1.0, 2.0, 3.0, 4.0]))  # to the right
    torch.testing.assert_close(bias[1, 2, 1], torch.tensor([2.0, 2.0]))  # diagonally, second point
    torch.testing.assert_close(bias[2, 0, 0], torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)
