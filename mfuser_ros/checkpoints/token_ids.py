"""Token ids of words for a text tower whose tokenizer does not ship with us, from a file of the user's.

SigLIP's ids are pieces of the sentencepiece model of google/siglip-large-patch16-384 (`spiece.model`): the bare words,
lower-cased, without punctuation, ended and padded with its end token to the length that the tower reads.

The file is kept beside the weights as NAME.tokens.model, .yaml or .json, so that the model can read other words later.

Source: spec of MFuser section 4.1.
"""

from __future__ import annotations

import shutil
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mfuser_ros.checkpoints.store import TokenIds
from mfuser_ros.errors import CheckpointError, ConfigurationError, VocabularyError

_MODEL, _LISTS = ".model", (".yaml", ".yml", ".json")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def tokens_beside(weights: Path) -> Path | None:
    """The file of token ids that is kept beside a model's weights, if there is one."""
    paths = (_beside(weights, suffix) for suffix in (_MODEL, *_LISTS))
    return next((path for path in paths if path.is_file()), None)


def keep_beside(tokens: Path, weights: Path) -> None:
    """Copy a file of token ids to where `tokens_beside` finds it, in the place of one that is there.

    Raises:
        CheckpointError: it cannot be written.
    """
    target = _beside(weights, tokens.suffix)
    try:
        if tokens.resolve() != target.resolve():
            shutil.copyfile(tokens, target)
        for suffix in {_MODEL, *_LISTS} - {tokens.suffix}:
            _beside(weights, suffix).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written ({error.strerror}): choose another folder") from error


def _beside(weights: Path, suffix: str) -> Path:
    return weights.with_suffix(f".tokens{suffix}")


def read_token_ids(path: Path, names: Sequence[str], tokens: int) -> TokenIds:
    """Token ids of words.

    Args:
        path: a sentencepiece model (.model), or YAML or JSON that gives for each name its list of ids, padded.
        names: of the classes, or other phrases.
        tokens: how many ids the text tower reads for each.

    Returns:
        (names, tokens) ids, in the order of the names.

    Raises:
        ConfigurationError: the file is missing or of another kind, a name has no ids or a wrong number of them, or
            the package sentencepiece is missing.
        VocabularyError: a name has more pieces than the text tower reads.
    """
    if path.suffix == _MODEL:
        return _tokenized(path, names, tokens)
    if path.suffix not in _LISTS:
        raise ConfigurationError(f"{path}: holds no token ids: give a sentencepiece .model, or .yaml or .json with ids")
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: is no YAML ({' '.join(str(error).split())}): correct it") from error
    if not isinstance(listed, dict):
        raise ConfigurationError(f"{path}: must give for each name its ids, such as `road: [1, 2, 3, 4, 5]`")
    for name in names:
        ids = listed.get(name)
        if not isinstance(ids, list) or len(ids) != tokens or not all(type(token) is int for token in ids):
            raise ConfigurationError(f"{path}: {name!r} needs a list of {tokens} ids, it has {ids!r}: correct it")
    return tuple(tuple(listed[name]) for name in names)


def _tokenized(path: Path, names: Sequence[str], tokens: int) -> TokenIds:
    try:
        import sentencepiece  # noqa: PLC0415  # optional: a file of ids does without
    except ImportError as error:
        raise ConfigurationError(
            f"{path}: reading it needs the package sentencepiece: pip install 'mfuser_ros[siglip]', or give the ids"
        ) from error
    try:
        processor: Any = sentencepiece.SentencePieceProcessor(model_file=str(path))  # untyped
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigurationError(f"{path}: is no sentencepiece model ({reason}): fetch it again") from error
    end = processor.eos_id()
    if end < 0:
        raise ConfigurationError(f"{path}: has no end token, which SigLIP's tokenizer has: give its own file")
    rows = []
    for name in names:
        words = " ".join(name.lower().translate(_NO_PUNCTUATION).split())
        row = [*processor.encode(words), end]
        if len(row) > tokens:
            raise VocabularyError(f"{name!r}: needs {len(row)} tokens, the text tower reads {tokens}: shorten it")
        rows.append((*row, *[end] * (tokens - len(row))))
    return tuple(rows)
