"""A few learned tokens between the features: Rein, and cross-attention of both towers through such tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RankedTokens(nn.Module):
    """A matrix of learned tokens of low rank, T = A B.

    Source: spec of MFuser section 10.2, Wei et al., Rein (CVPR 2024).
    """

    def __init__(self, width: int, tokens: int, rank: int) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(tokens, rank))
        self.B = nn.Parameter(torch.empty(rank, width))
        bound = math.sqrt(6 / (3 * 16**2 + math.sqrt(width * rank)))
        nn.init.uniform_(self.A, -bound, bound)
        nn.init.uniform_(self.B, -bound, bound)

    def forward(self) -> Tensor:
        """(tokens, width)."""
        return self.A @ self.B


class ReinMaps(nn.Module):
    """What all blocks of Rein share: its two maps and its scale."""

    def __init__(self, width: int, initial_scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(initial_scale))
        self.of_tokens = nn.Linear(width, width)
        self.of_features = nn.Linear(width, width)
        for layer in (self.of_tokens, self.of_features):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))


class ReinMixer(nn.Module):
    """Rein: the features of a frozen tower, refined by learned tokens that look at no other tower.

    S = softmax(f T^T / sqrt(c)); the column of the first token is dropped, so that a feature may look at nothing;
    the offset is (S[:, 1:] (T[1:] W_T + b_T) + f) W_f + b_f, times a learned scale. Class tokens get no offset.
    The maps W_T and W_f and the scale belong to the network, not to a block (`maps` is shared by all of them).

    Source: equations of the paper, Wei et al., Rein (CVPR 2024), as in spec of MFuser section 10.2.
    """

    def __init__(self, width: int, tokens: int, rank: int, maps: ReinMaps) -> None:
        super().__init__()
        self.tokens = RankedTokens(width, tokens, rank)
        self._maps = (maps,)  # in a tuple: who shares them among the blocks registers them

    def forward(self, towers: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        """Tokens of each tower, (batch, L, width) each, and their grid -> an offset for each token."""
        (maps,) = self._maps
        tokens = self.tokens()  # (m, width)
        places = grid[0] * grid[1]
        offsets = []
        for tower in towers:
            features = tower[:, -places:]
            share = (features @ tokens.T / math.sqrt(tokens.shape[-1])).softmax(-1)[..., 1:]
            offset = maps.scale * maps.of_features(share @ maps.of_tokens(tokens[1:]) + features)
            offsets.append(F.pad(offset, (0, 0, tower.shape[1] - places, 0)))
        return offsets


class TokenCrossAttention(nn.Module):
    """Learned tokens gather from the features of all towers, and every feature reads from the tokens.

    The paper's row cites Rein, whose tokens see one tower only; that the tokens gather from both first is our reading.
    The cost grows with the features, not with their square.

    Source: spec of MFuser section 11, "Cross-Attention", with the equations of 10.2 for the second step.
    """

    def __init__(self, width: int, tokens: int, rank: int) -> None:
        super().__init__()
        self.tokens = RankedTokens(width, tokens, rank)
        self.of_tokens = nn.Linear(width, width)
        self.of_features = nn.Linear(width, width)

    def forward(self, towers: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:  # noqa: ARG002
        """Tokens of each tower, (batch, L, width) each -> an offset for each token."""
        features = torch.cat(list(towers), 1)
        tokens = self.tokens()
        affinity = features @ tokens.T / math.sqrt(tokens.shape[-1])  # (batch, L, m)
        gathered = tokens + affinity.softmax(1).transpose(1, 2) @ features  # (batch, m, width)
        read = affinity.softmax(-1) @ self.of_tokens(gathered)
        offset: Tensor = self.of_features(read + features)
        return list(torch.split(offset, [tower.shape[1] for tower in towers], 1))
