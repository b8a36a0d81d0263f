"""What each fusion costs for one block: parameters of the real modules, and FLOPs by the paper's way of counting.

The paper's table 3 is met by two FLOPs for each multiplication of a matrix product or convolution and a batch of two
pictures, both towers with 36 x 36 patches and a class token. Elementwise work, softmax, the sampling of deformable
attention and the recurrence of the scan are not counted; the gain of MVFuser's norm is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mfuser_ros.network.alternatives.mixers import build_mixer
from mfuser_ros.network.config import FusionConfig, FusionKind

# parameters in millions and GFLOPs of the paper's table 3
PAPER: dict[FusionKind, tuple[str, str]] = {
    "self-attention": ("4.20", "98.64"),
    "separate-self-attention": ("8.40", "71.08"),
    "deformable": ("3.35", "34.65"),
    "mvfuser": ("1.67", "17.21"),
}
NOTES: dict[FusionKind, str] = {
    "self-attention": "queries, keys, values and output with biases",
    "separate-self-attention": "one for each tower",
    "deformable": "one module for both directions; 16 heads, 4 points, patches only",
    "mvfuser": "the scan's recurrence is not counted",
    "separate-mvfuser": "one for each tower; the scan's recurrence is not counted",
    "convolution": "1x1, 3x3, 1x1 with a quarter of the width between; patches only",
    "cross-attention": "100 learned tokens of rank 16 gather from both towers and answer",
    "rein": "one tower; 100 learned tokens of rank 16; its two maps serve all blocks",
}


@dataclass(frozen=True)
class Cost:
    """Cost of the fusion after one block."""

    kind: FusionKind
    parameters: int
    flops: int

    @property
    def shown(self) -> tuple[str, str]:
        """Parameters in millions and GFLOPs with two decimals, as the paper shows them."""
        return f"{self.parameters / 1e6:.2f}", f"{self.flops / 1e9:.2f}"

    @property
    def verdict(self) -> str:
        """Whether the shown figures are the paper's."""
        paper = PAPER.get(self.kind)
        if paper is None:
            return "not in table 3"
        return "agrees" if paper == self.shown else "differs from the paper"

    @property
    def note(self) -> str:
        """What is counted."""
        return NOTES[self.kind]


def cost(config: FusionConfig, width: int, *, places: int, batch: int, class_token: bool = True) -> Cost:
    """Cost of one mixer between two towers (of one tower for `rein`).

    Args:
        config: kind and sizes.
        width: of the tokens, d.
        places: tokens on the grid of a tower.
        batch: pictures.
        class_token: whether each tower has one more token.
    """
    towers = 1 if config.kind == "rein" else 2
    with torch.device("meta"):
        mixer = build_mixer(config, width, towers=towers)
    parameters = sum(parameter.numel() for parameter in mixer.parameters())
    each, once = _multiplications(config, width, places, places + class_token)
    return Cost(config.kind, parameters, 2 * (batch * each + once))


def efficiency(width: int = 1024, places: int = 36 * 36, batch: int = 2) -> list[Cost]:
    """Costs of all fusions at the sizes of the paper's table 3 (L = 2594 tokens), its rows first."""
    kinds = list(PAPER) + [kind for kind in NOTES if kind not in PAPER]
    return [cost(FusionConfig(kind=kind, stages=(), width=None), width, places=places, batch=batch) for kind in kinds]


def _multiplications(  # noqa: PLR0911  # one for each kind
    config: FusionConfig, d: int, places: int, length: int
) -> tuple[int, int]:
    """Multiplications for one picture, and those that a batch does once; `length` is the tokens of one tower."""
    m, rank = config.tokens, config.rank
    match config.kind:
        case "mvfuser" | "separate-mvfuser":
            return 2 * length * _mvfuser(d, config.state), 0
        case "self-attention":
            return _attention(2 * length, d), 0
        case "separate-self-attention":
            return 2 * _attention(length, d), 0
        case "deformable":
            return 2 * places * (3 * d * d + d * config.heads * config.points * 3), 0
        case "convolution":
            middle = max(1, d // 4)
            return places * (2 * d * middle + 9 * middle * middle + middle * 2 * d), 0
        case "cross-attention":
            return 2 * length * (3 * m * d + d * d) + m * d * d, m * rank * d
        case "rein":
            return places * (m * d + (m - 1) * d + d * d), m * rank * d + (m - 1) * d * d
        case "none":
            return 0, 0


def _mvfuser(d: int, state: int) -> int:
    """For one token: the five maps, two convolutions of width 3 and the norm's gain (spec of MFuser 3.4)."""
    inner, rank = d // 2, math.ceil(d / 16)
    return d * d + inner * (rank + 2 * state) + rank * inner + inner * d + 2 * 3 * inner + inner


def _attention(length: int, d: int) -> int:
    """Four maps, and each token with each one twice: for the weights and for the sum."""
    return 4 * length * d * d + 2 * length * length * d
