"""Linear maps in e4m3: how far numbers move, and that whole towers keep their classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mfuser_ros.checkpoints import rebuild
from mfuser_ros.checkpoints.golden import read_golden
from mfuser_ros.network.fused.blocks import fuse_blocks
from mfuser_ros.network.fused.float8 import LARGEST, Float8Linear, can_be_float8, quantised, take_float8

GOLDEN = Path(__file__).parents[1] / "golden"


def test_largest_of_a_row_becomes_the_largest_of_the_format_and_comes_back():
    rows = torch.tensor([[0.5, -2.0, 1.0], [0.0, 0.0, 0.0], [448.0, 1.0, 2.0]])

    content, scale = quantised(rows)

    assert content.dtype == torch.float8_e4m3fn
    assert content.float().abs().amax(1).tolist() == [LARGEST, 0, LARGEST]
    torch.testing.assert_close(content.float() * scale, rows)  # all of them powers of 2 apart


def test_number_moves_by_at_most_a_sixteenth_of_itself():
    rows = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 64)[:, None]

    content, scale = quantised(rows)

    moved = (content.float() * scale - rows).abs()
    assert (moved <= (rows.abs() / 16).maximum(scale * 2**-10) * 1.001).all()
    assert moved.max() > 0


@pytest.mark.parametrize("bias", [True, False])
def test_product_stays_within_what_the_rounding_of_both_factors_allows(bias):
    torch.manual_seed(0)
    layer = nn.Linear(64, 32, bias=bias).requires_grad_(False)
    x = torch.randn(2, 7, 64)

    found, expected = Float8Linear(layer)(x), layer(x)

    assert found.shape == expected.shape
    bound = (1 + 1 / 16) ** 2 - 1
    allowed = bound * (x.abs() @ layer.weight.abs().t()) + (layer.bias.abs() / 256 if bias else 0) + 1e-3
    assert ((found - expected).abs() <= allowed).all()
    assert (found - expected).norm() < 0.06 * expected.norm()


def test_sides_that_the_product_does_not_take_are_left():
    assert can_be_float8(nn.Linear(32, 48))
    assert not can_be_float8(nn.Linear(24, 48))
    assert not can_be_float8(nn.Conv2d(32, 32, 1))


def test_fused_block_keeps_its_direction():
    from timm.models.vision_transformer import Block

    from mfuser_ros.network.fused.blocks import FusedBlock

    torch.manual_seed(0)
    block = FusedBlock(Block(64, 4, qkv_bias=True).eval().requires_grad_(False))
    holder = nn.Module()
    holder.net = nn.ModuleList([block])  # type: ignore[assignment]
    model = nn.Module()
    model.towers = [holder]  # type: ignore[assignment]
    x = torch.randn(1, 9, 64)
    expected = block(x)

    assert take_float8(model) == 4  # type: ignore[arg-type]  # queries to values, out, and two of the MLP
    found = block(x)

    assert not torch.equal(found, expected)
    assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), 0) > 0.995


def test_towers_of_odd_width_run_as_before():
    network = rebuild.mfuser(read_golden(GOLDEN / "model_eva_tiny")).eval().requires_grad_(False)
    for tower in network.towers:
        fuse_blocks(tower.net)

    wide = [
        layer for tower in network.towers for block in tower.net.blocks for layer in block.modules()
        if can_be_float8(layer)
    ]  # fmt: skip
    assert take_float8(network) == len(wide)
