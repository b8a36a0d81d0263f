"""What tqdm holds a training to: the words as they are, and the tower as it was.

Source: spec of MFuser section 10.1; Pak et al., Textual Query-Driven Mask Transformer (ECCV 2024).
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.model import MFuser, Output
from mfuser_ros.network.text import StoredTextQueries
from mfuser_ros.network.towers import Tower


class Drift(NamedTuple):
    """How far a network has gone from what it came from, () each."""

    language: Tensor
    vision: Tensor


class Anchor:
    """The last tower and the words of a network as they are now, to measure later how far it has gone from them."""

    def __init__(self, model: MFuser) -> None:
        """Copy the tower, frozen.

        Raises:
            ConfigurationError: the network has no stored words.
        """
        if not isinstance(model.text, StoredTextQueries):
            raise ConfigurationError(
                "losses.language and losses.vision hold to stored words, which this network lacks: set both to 0"
            )
        self._tower = model.towers[-1]
        self._frozen = copy.deepcopy(self._tower).eval().requires_grad_(requires_grad=False)

    def __call__(self, pictures: Tensor, output: Output) -> Drift:
        """Measure on the pictures (batch, 3, H, W) that the network gave this output for."""
        with torch.no_grad():
            was = global_embedding(self._frozen, last_tokens(self._frozen, pictures))
        is_now = global_embedding(self._tower, output.encoded.tokens[-1])
        return Drift(language_loss(output.queries, output.text), F.mse_loss(is_now.float(), was.float()))


def language_loss(queries: Tensor, words: Tensor) -> Tensor:
    """Cross entropy over the rows of cosines between enhanced and plain words, each to its own, without temperature.

    Args:
        queries: (batch, K, width) enhanced words.
        words: (K, width) plain ones.
    """
    cosine = F.normalize(queries.float(), dim=-1) @ F.normalize(words.float(), dim=-1).T  # (batch, K, K)
    return -cosine.log_softmax(-1).diagonal(dim1=1, dim2=2).mean()


def global_embedding(tower: Tower, tokens: Tensor) -> Tensor:
    """(batch, L, width) last tokens -> (batch, D) the whole picture: in text space where the tower has a map to it.

    Else it is the class token, or the mean of the grid if there is none.
    """
    tokens = tower.final_norm(tokens)
    if tower.text_space:
        return tower.to_text_space(tokens)[:, 0]
    return tokens[:, 0] if tower.class_token else tokens.mean(1)


def last_tokens(tower: Tower, pictures: Tensor) -> Tensor:
    """(batch, L, width) tokens after all stages of one tower alone, for (batch, 3, H, W) RGB 0..255."""
    state = tower.embed(pictures)
    for stage in range(len(tower.widths)):
        state = tower.stage(stage, state)
    return tower.tokens(state)
