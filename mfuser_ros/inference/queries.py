"""How the classes of a vocabulary rest on the classes that a model was trained with.

A query that is the name of one of the model's classes stands for that class; several such queries merge their classes,
whose probabilities add up. Any other words need a text tower. They then say anew what the model's class of the same id
is: the decoders hold weights for each class, so words alone make no class more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mfuser_ros.checkpoints import ModelCard
from mfuser_ros.checkpoints.store import class_token_ids
from mfuser_ros.errors import ConfigurationError, VocabularyError
from mfuser_ros.network.config import LinkedText, StoredText
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.text import TextEncoder
from mfuser_ros.vocabulary import Vocabulary

Members = tuple[tuple[int, ...], ...]
"""For each class of a vocabulary the ids of the model's classes that it is made of."""


def adopt(network: MFuser, card: ModelCard, vocabulary: Vocabulary) -> Members | None:
    """Make a network speak of the classes of a vocabulary.

    Args:
        network: as loaded; its text tower, if any, is set to the words of the vocabulary where they are new.
        card: of the model; names its classes.
        vocabulary: every query the name of a class of the model, each at most once; or, with a text tower, any words
            for as many classes as the model has, in the model's order. Embeddings of several phrases are averaged.

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
        raise VocabularyError(
            f"{card.name}: query {strange!r}: the model has no text tower, its classes can be renamed, merged and "
            f"recoloured only: let each query be one of {', '.join(own)}"
        )
    _check_order(vocabulary, own, card)
    assert not isinstance(card.architecture.text, (StoredText, LinkedText))  # there is a text tower
    try:
        ids = class_token_ids(card.architecture.text, queries, None)
        network.text.set_token_ids(ids, [len(entry.queries) for entry in vocabulary.classes])
    except (ConfigurationError, VocabularyError) as error:
        raise VocabularyError(f"{card.name}: query {strange!r} is none of its classes: {error}") from error
    return None


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


def _check_order(vocabulary: Vocabulary, own: dict[str, int], card: ModelCard) -> None:
    if len(vocabulary) != len(own):
        raise VocabularyError(
            f"{card.name}: its decoders have weights for {len(own)} classes, the vocabulary has {len(vocabulary)} in "
            "words of its own: describe the classes of the model in their order, or train a model for these"
        )
    for entry in vocabulary.classes:
        for query in entry.queries:
            if own.get(query, entry.id) != entry.id:
                raise VocabularyError(
                    f"{card.name}: query {query!r}: is class {own[query]} of the model, the vocabulary has it at "
                    f"{entry.id}: keep the model's order where words of your own are used"
                )
