"""What tqdm holds a training to: the words as they are, and the tower as it was.

Source: spec of MFuser section 10.1; Pak et al., Textual Query-Driven Mask Transformer (ECCV 2024).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.model import MFuser, Output
from mfuser_ros.network.text import EvaTextEncoder, StoredTextQueries, tokenize
from mfuser_ros.network.tower import Tower

TEMPLATE = "a clean origami of a {}"  # of tqdm


class Drift(NamedTuple):
    """How far a network has gone from what it came from, () each."""

    language: Tensor
    vision: Tensor


class Anchor:
    """The last tower and the words of a network as they are now, to measure later how far it has gone from them."""

    def __init__(self, model: MFuser, names: Sequence[str] | None) -> None:
        """Copy the tower, frozen.

        Args:
            model: as the training begins.
            names: of the classes; None: words are not measured, and their drift is 0.

        Raises:
            ConfigurationError: the network has no words, or its tokenizer does not ship with us (SigLIP).
        """
        self._words = None if names is None else plain_words(model, names)
        self._tower = model.towers[-1]
        self._frozen = copy.deepcopy(self._tower).eval().requires_grad_(requires_grad=False)

    def __call__(self, pictures: Tensor, output: Output) -> Drift:
        """Measure on the pictures (batch, 3, H, W) that the network gave this output for."""
        with torch.no_grad():
            was = global_embedding(self._frozen, last_tokens(self._frozen, pictures))
        is_now = global_embedding(self._tower, output.encoded.tokens[-1])
        words = self._words
        language = is_now.new_zeros(()) if words is None else language_loss(output.queries, words)
        return Drift(language, F.mse_loss(is_now.float(), was.float()))


@torch.no_grad()
def plain_words(model: MFuser, names: Sequence[str]) -> Tensor:
    """(K, width) words that no training changes: stored ones, or what a text tower says of the template.

    Raises:
        ConfigurationError: the network has no words, or its tokenizer does not ship with us (SigLIP).
    """
    text = model.text
    if isinstance(text, StoredTextQueries):
        return text.forward()
    if not isinstance(text, EvaTextEncoder):
        raise ConfigurationError(
            "losses.language needs stored words, or a text tower whose tokenizer ships with us: set it to 0"
        )
    config = text.config
    ids = tokenize([TEMPLATE.format(name) for name in names], config.tokens + config.contexts)
    return text.encode_plain(torch.tensor(ids, device=text.contexts.device))


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
