"""The network that a training starts from: pretrained towers and text, all else random."""

from __future__ import annotations

from pathlib import Path

import torch

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints.convert import token_ids_for
from mfuser_ros.checkpoints.originals import untrained
from mfuser_ros.checkpoints.store import class_token_ids, read_tensors
from mfuser_ros.errors import CheckpointError, ConfigurationError
from mfuser_ros.hub import OPEN_CLIP, TIMM
from mfuser_ros.network.config import DroppedText, LinkedText, StoredText, changed
from mfuser_ros.network.mobilenet import MobileNetV2Tower, load_mobilenet
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.text import StoredTextQueries
from mfuser_ros.training.config import TowerFiles, TrainConfig


def initial_model(config: TrainConfig, towers: Path) -> MFuser:
    """The preset as the recipe changes it, with pretrained towers and text; all else is random by the recipe's seed.

    Transformers, and a text tower, come from the files of the original encoders, as published.

    Raises:
        ConfigurationError: no such preset, changes that it does not allow, or towers that no file fills.
        CheckpointError: a file is missing or does not fit.
    """
    architecture = changed(config.preset, config.changes)
    files = config.towers
    torch.manual_seed(config.seed)
    text, names = architecture.text, vocabulary.load().names
    convolutional = all(getattr(architecture, tower).layout == "mobilenetv2" for tower in architecture.tower_names)
    if isinstance(text, StoredText) or (isinstance(text, LinkedText) and convolutional):
        model = MFuser(architecture)
        load_pretrained(model, files, towers)
        return model
    if isinstance(text, DroppedText):
        raise ConfigurationError(
            "changes.text.kind dropped: its contexts cannot be trained: choose the text tower's kind"
        )
    vlm, vfm = (_source(towers, name) for name in (files.vlm, files.vfm))
    if isinstance(text, LinkedText):
        return untrained(vlm, vfm, architecture=architecture).network
    tokens = None if files.tokens is None else towers / files.tokens
    token_ids = tuple(map(tuple, class_token_ids(text, names, token_ids_for(architecture, names, tokens))))
    return untrained(vlm, vfm, architecture=architecture, token_ids=token_ids).network


def _source(folder: Path, name: str) -> Path:
    """A file in the folder, or a name in timm or open_clip as it is."""
    return Path(name) if name.startswith((TIMM, OPEN_CLIP)) else folder / name


def load_pretrained(model: MFuser, files: TowerFiles, folder: Path) -> None:
    """Fill MobileNetV2 towers and stored text embeddings from files in `folder`.

    Raises:
        ConfigurationError: the towers are not MobileNetV2, or the recipe names no text.
        CheckpointError: a file is missing or does not fit.
    """
    for tower, part in zip(model.towers, model.architecture.tower_names, strict=True):
        name = getattr(files, part)
        if not isinstance(tower, MobileNetV2Tower):
            raise ConfigurationError(f"{name}: only MobileNetV2 towers are filled from files: choose the preset small")
        load_mobilenet(tower, {key: value.float() for key, value in read_tensors(folder / name).items()})
    if model.architecture.matched:  # it knows no text
        return
    if not isinstance(model.text, StoredTextQueries):
        raise ConfigurationError(f"{files.text}: the preset has a text tower of its own: choose the preset small")
    if files.text is None:
        raise ConfigurationError("towers.text: the preset keeps text embeddings: name the file that holds them")
    text = read_tensors(folder / files.text).get("text")
    embeddings = model.text.embeddings
    if text is None or text.shape != embeddings.shape:
        found = "nothing" if text is None else f"shape {tuple(text.shape)}"
        raise CheckpointError(f"{folder / files.text}: `text` is {found}, not of shape {tuple(embeddings.shape)}")
    with torch.no_grad():
        embeddings.copy_(text)
