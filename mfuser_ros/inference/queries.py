"""How the classes of a vocabulary rest on the classes that a model was trained with.

A query that is the name of one of the model's classes stands for that class; several such queries merge their classes,
whose probabilities add up. Any other words need a text tower. As many classes as the model has, in its order, say anew
what each of them is; any other list is made of new classes, each with the decoder weights of the model's class whose
words are nearest to its own (`mfuser_ros.network.rebind`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mfuser_ros.checkpoints import ModelCard
from mfuser_ros.checkpoints.store import class_token_ids
from mfuser_ros.checkpoints.token_ids import read_token_ids
from mfuser_ros.errors import ConfigurationError, VocabularyError
from mfuser_ros.network.config import DroppedText, LinkedText, SiglipText, StoredText
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.rebind import nearest_classes, rebind
from mfuser_ros.network.text import TextEncoder
from mfuser_ros.vocabulary import Vocabulary

Members = tuple[tuple[int, ...], ...]
"""For each class of a vocabulary the ids of the model's classes that it is made of."""


def adopt(network: MFuser, card: ModelCard, vocabulary: Vocabulary, tokens: Path | None = None) -> Members | None:
    """Make a network speak of the classes of a vocabulary.

    Args:
        network: as loaded; its text tower, if any, is set to the words of the vocabulary where they are new.
        card: of the model; names its classes.
        vocabulary: every query the name of a class of the model, each at most once; or, with a text tower, any words.
            Embeddings of several phrases are averaged.
        tokens: file that gives SigLIP's text tower the token ids of other words (`read_token_ids`), if there is one.

    Returns:
        What is to be merged; None where the classes of the vocabulary are those of the network, one for one.

    Raises:
        VocabularyError: the model cannot know these classes; the text says why.
    """
    own = {name: index for index, name in enumerate(card.vocabulary)}
    queries = [query for entry in vocabulary.classes for query in entry.queries]
    strange = next((query for query in queries if query not in own), None)
    if strange is None:
        return _members(vocabulary, own, card)
    if not isinstance(network.text, TextEncoder):
        left_out = isinstance(card.architecture.text, DroppedText)
        why = "was converted without its text tower" if left_out else "has no text tower"
        mend = "convert it without --drop-text, or l" if left_out else "l"
        raise VocabularyError(
            f"{card.name}: query {strange!r}: the model {why}, its classes can be renamed, merged and "
            f"recoloured only: {mend}et each query be one of {', '.join(own)}"
        )
    with torch.no_grad():
        trained = network.text().clone()
    try:
        ids = _token_ids(card, queries, tokens)
        network.text.set_token_ids(ids, [len(entry.queries) for entry in vocabulary.classes])
    except (ConfigurationError, VocabularyError) as error:
        raise VocabularyError(f"{card.name}: query {strange!r} is none of its classes: {error}") from error
    if not _in_order(vocabulary, own):
        with torch.no_grad():
            rebind(network, nearest_classes(network.text(), trained))
    return None


def _token_ids(card: ModelCard, queries: Sequence[str], tokens: Path | None) -> Sequence[Sequence[int]]:
    text = card.architecture.text
    assert not isinstance(text, (StoredText, DroppedText, LinkedText))  # there is a text tower
    if not isinstance(text, SiglipText):
        return class_token_ids(text, queries, None)
    if tokens is None:
        raise ConfigurationError(
            "SigLIP's tokenizer does not ship with us: beside NAME.safetensors put its spiece.model as "
            "NAME.tokens.model, or the ids of all words as NAME.tokens.yaml"
        )
    return read_token_ids(tokens, queries, text.tokens)


def merging(members: Members, classes: int) -> Tensor:
    """(K', K) matrix of 0 and 1 that adds up the probabilities of the members of each class."""
    matrix = torch.zeros(len(members), classes)
    for row, group in enumerate(members):
        matrix[row, list(group)] = 1
    return matrix


def _members(vocabulary: Vocabulary, own: dict[str, int], card: ModelCard) -> Members | None:
    user: dict[str, str] = {}
    for entry in vocabulary.classes:
        for query in entry.queries:
            if query in user:
                raise VocabularyError(
                    f"{card.name}: query {query!r}: stands in {user[query]!r} and again in {entry.name!r}: a class of "
                    "the model belongs to one class at most"
                )
            user[query] = entry.name
    members = tuple(tuple(own[query] for query in entry.queries) for entry in vocabulary.classes)
    return None if members == tuple((index,) for index in range(len(own))) else members


def _in_order(vocabulary: Vocabulary, own: dict[str, int]) -> bool:
    """Whether the classes can be the model's, one for one: their number, and the place of each name that is known."""
    return len(vocabulary) == len(own) and all(
        own.get(query, entry.id) == entry.id for entry in vocabulary.classes for query in entry.queries
    )
