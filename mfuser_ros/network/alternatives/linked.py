"""Queries without text: Rein's, made from the tokens that refine the features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mfuser_ros.network.alternatives.tokens import RankedTokens


class LinkedQueries(nn.Module):
    """One query for each learned token: the tokens of all stages, mapped alike and joined.

    Q_i = T_i W_Q + b_Q for stage i; Q = [max_i Q_i ; mean_i Q_i ; Q_last] W + b. Q is where the query decoder puts its
    queries; what they hold at first is a linear map of it.

    Source: equations of the paper, Wei et al., Rein (CVPR 2024), as in spec of MFuser section 10.2.
    """

    def __init__(self, tokens: Sequence[RankedTokens], width: int) -> None:
        """Build for the tokens of each stage, which belong to the fusion, and the width of the queries."""
        super().__init__()
        self._tokens = tuple(tokens)  # in a tuple: the network registers them once, where they refine features
        self.of_tokens = nn.Linear(tokens[0].B.shape[1], width)
        self.merge = nn.Linear(3 * width, width)

    def forward(self) -> Tensor:
        """(tokens, width) queries."""
        stages = torch.stack([self.of_tokens(tokens()) for tokens in self._tokens])  # (stages, tokens, width)
        queries: Tensor = self.merge(torch.cat([stages.amax(0), stages.mean(0), stages[-1]], -1))
        return queries
