"""Costs of the fusions: by hand, by torch's own counter, and as the paper prints them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mfuser_ros.network.alternatives import build_mixer
from mfuser_ros.network.alternatives.cost import PAPER, cost, efficiency
from mfuser_ros.network.config import FusionConfig


@pytest.mark.parametrize(
    "kind",
    ["self-attention", "separate-self-attention", "deformable", "convolution", "cross-attention", "rein"],
)
def test_flops_are_those_that_torch_counts(kind):
    config = FusionConfig(kind=kind, stages=(), width=None, heads=4, tokens=5, rank=2)
    towers = 1 if kind == "rein" else 2
    mixer = build_mixer(config, 32, towers=towers)
    tokens = [torch.randn(3, 1 + 6, 32) for _ in range(towers)]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        mixer(tokens, (2, 3))

    counted = cost(config, 32, places=6, batch=3)

    assert counted.flops == counter.get_total_flops()
    assert counted.parameters == sum(parameter.numel() for parameter in mixer.parameters())


@pytest.mark.parametrize("kind", ["mvfuser", "separate-mvfuser"])
def test_mvfuser_costs_what_the_hand_calculation_says(kind):
    # 1024: maps 1048576 + 49152 + 32768 + 524288, convolutions 3072, norm 512, for each of 2594 tokens
    counted = cost(FusionConfig(kind=kind, stages=(), width=None), 1024, places=1296, batch=2)

    assert counted.flops == 4 * 2594 * 1_658_368
    assert counted.parameters == {"mvfuser": 1, "separate-mvfuser": 2}[kind] * 1_667_585


def test_rein_has_the_parameters_of_its_paper_in_each_block():
    counted = cost(FusionConfig(kind="rein", stages=(), width=None), 1024, places=1024, batch=1)

    # one block's tokens (100 x 16 and 16 x 1024), two shared maps with biases, the scale
    assert counted.parameters == (38_400 + 393_216) // 24 + 2 * 1_049_600 + 1


def test_table_agrees_with_the_paper_to_the_last_digit():
    rows = {row.kind: row for row in efficiency()}

    assert {kind: rows[kind].shown for kind in PAPER} == {
        "self-attention": ("4.20", "98.64"),
        "separate-self-attention": ("8.40", "71.08"),
        "deformable": ("3.35", "34.65"),
        "mvfuser": ("1.67", "17.21"),
    }
    assert all(rows[kind].verdict == "agrees" for kind in PAPER)
    assert all(row.verdict == "not in table 3" for kind, row in rows.items() if kind not in PAPER)
