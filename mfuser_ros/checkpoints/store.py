"""Our model files: NAME.safetensors holds the weights in fp16, NAME.yaml beside it says what they are.

Nothing is unpickled. The YAML carries the SHA-256 of the weights, so that the two cannot drift apart unseen.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import safetensors.torch
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, model_validator
from safetensors import SafetensorError
from torch import Tensor

from mfuser_ros import share, validated
from mfuser_ros.errors import CheckpointError, ConfigurationError, VocabularyError
from mfuser_ros.network.config import Architecture, DroppedText, LinkedText, SiglipText, StoredText
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.text import EncodedText, tokenize

WEIGHTS = ".safetensors"
DESCRIPTION = ".yaml"

TokenIds = tuple[tuple[NonNegativeInt, ...], ...]


class ModelCard(BaseModel):
    """What a person must know to use some weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    architecture: Architecture  # also says how a picture is brought to the network (architecture.input)
    vocabulary: tuple[Annotated[str, Field(min_length=1)], ...]  # class names in the order of their ids
    threshold: float = Field(ge=0, lt=1)  # probability below which a pixel is unknown; 0: nothing is
    temperature: PositiveFloat  # T of the calibrated probability s^(1/T) / sum s^(1/T)
    licence: str = Field(min_length=1)
    provenance: str = Field(min_length=1)  # what the weights were made from, and by which command
    token_ids: TokenIds | None = None  # of the class names, for a text tower whose tokenizer does not ship with us

    @model_validator(mode="after")
    def _a_name_for_each_class(self) -> ModelCard:
        if len(self.vocabulary) != self.architecture.classes:
            raise ValueError(f"{len(self.vocabulary)} names for {self.architecture.classes} classes")
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("two classes have the same name")
        if self.token_ids is not None and len(self.token_ids) != self.architecture.classes:
            raise ValueError(f"token ids of {len(self.token_ids)} classes for {self.architecture.classes}")
        return self


class ModelFile(ModelCard):
    """The content of NAME.yaml: the card, and which weights it speaks of."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def locate(name_or_path: str | os.PathLike[str]) -> Path:
    """Path of the weights that a name in models/, or a path, stands for.

    Raises:
        CheckpointError: there is no such file; the text lists the models that are there.
    """
    given = Path(name_or_path)
    if given.suffix in {".pth", ".pt", ".ckpt", ".bin"}:
        raise CheckpointError(f"{given}: is no model of this package: bring it over with `mfuser convert`")
    bare = given.name == str(given) and given.suffix != WEIGHTS
    if not bare:
        path = given if given.suffix == WEIGHTS else given.with_name(given.name + WEIGHTS)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file: give a model's name or the path of its {WEIGHTS}")
        return path
    try:
        models = share.find("models")
    except ConfigurationError as error:
        raise CheckpointError(f"{given}: {error}") from error
    path = models / f"{given.name}{WEIGHTS}"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in models.glob(f"*{WEIGHTS}"))) or "none"
        raise CheckpointError(f"{given}: no such model in {models} (there: {there}): give one of these or a path")
    return path


def load_model(name_or_path: str | os.PathLike[str]) -> tuple[MFuser, ModelFile]:
    """Build a network and fill it, in float32 on the CPU, in evaluation mode.

    Args:
        name_or_path: a name in models/, or the path of a .safetensors with its .yaml beside it.

    Raises:
        CheckpointError: a file is missing or corrupt, the weights are not those that the description speaks of, or they
            belong to another architecture; the text names the first tensor that does not fit.
    """
    path = locate(name_or_path)
    description = read_description(path.with_suffix(DESCRIPTION))
    found = sha256(path)
    if found != description.sha256:
        raise CheckpointError(
            f"{path}: SHA-256 is {found[:12]}..., {path.stem}{DESCRIPTION} says {description.sha256[:12]}...: "
            "fetch both files again"
        )
    tensors = read_tensors(path)
    try:
        network = build(description.architecture, description.vocabulary, description.token_ids)
    except (ConfigurationError, VocabularyError) as error:
        raise CheckpointError(f"{path.with_suffix(DESCRIPTION)}: {error}") from error
    fill(network, tensors, source=str(path))
    return network.eval(), description


def save_model(network: MFuser, card: ModelCard, path: str | os.PathLike[str]) -> ModelFile:
    """Write `path` (NAME.safetensors, floats in fp16) and NAME.yaml beside it.

    Both are written beside their place and then moved there, so that a reader or a full disk never meets half a file.

    Returns:
        The description as written, with the SHA-256 of the weights.

    Raises:
        CheckpointError: a weight is not a number or does not fit fp16, the network is not the card's, or the files
            cannot be written.
    """
    target = Path(path)
    if target.suffix != WEIGHTS:
        raise CheckpointError(f"{target}: a model's weights end in {WEIGHTS}: choose such a name")
    if network.architecture != card.architecture:
        raise CheckpointError(f"{target}: the card describes another architecture than the network's: give its own")
    tensors = {name: _half(name, tensor) for name, tensor in network.state_dict().items()}
    try:
        with written_beside(target) as weights, written_beside(target.with_suffix(DESCRIPTION)) as description:
            # one entry only: safetensors writes several in an order of chance, and the SHA-256 would change with it
            safetensors.torch.save_file(tensors, weights, metadata={"provenance": card.provenance})
            file = ModelFile(**dict(card), sha256=sha256(weights))
            description.write_text(_as_yaml(file), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{target}: cannot be written ({error}): free space or choose another folder") from error
    return file


def write_description(file: ModelFile, path: str | os.PathLike[str]) -> None:
    """Write NAME.yaml beside the weights at `path`, which stay as they are.

    Raises:
        CheckpointError: it cannot be written.
    """
    target = Path(path).with_suffix(DESCRIPTION)
    try:
        with written_beside(target) as description:
            description.write_text(_as_yaml(file), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written ({error}): free space or choose another folder") from error


def read_description(path: Path) -> ModelFile:
    """Read NAME.yaml.

    Raises:
        CheckpointError: it is missing, is no YAML, or has an unknown, missing or wrong entry, which the text names.
    """
    return validated.read(
        path,
        ModelFile,
        CheckpointError,
        missing="it belongs beside the weights",
        wrong="correct the entry or fetch the file again",
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, on the CPU.

    Raises:
        CheckpointError: the file is missing or corrupt.
    """
    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: is no whole safetensors file ({error}): fetch it again") from error


def build(architecture: Architecture, names: tuple[str, ...], token_ids: TokenIds | None = None) -> MFuser:
    """The network of an architecture with random weights, its text tower set to the class names.

    Args:
        architecture: the whole description.
        names: of the classes.
        token_ids: of the names, in place of those that the tokenizer gives.

    Raises:
        ConfigurationError: timm cannot build a tower as described, or the text tower lacks token ids.
        VocabularyError: a class name is too long for the text tower.
    """
    text = architecture.text
    return MFuser(
        architecture,
        None if isinstance(text, StoredText | DroppedText | LinkedText) else class_token_ids(text, names, token_ids),
    )


def class_token_ids(text: EncodedText, names: Sequence[str], given: TokenIds | None) -> Sequence[Sequence[int]]:
    """(classes, tokens) ids for a text tower: the given ones, or those of the class names.

    Raises:
        ConfigurationError: SigLIP's tower, whose tokenizer does not ship with us, and no ids were given.
        VocabularyError: a class name is too long for the text tower.
    """
    if given is not None:
        return given
    if isinstance(text, SiglipText):
        raise ConfigurationError(
            "the class names have no token ids, and SigLIP's tokenizer does not ship with us: "
            "give the ids or a local tokenizer file"
        )
    return tokenize(names, text.tokens)


def fill(network: MFuser, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Load weights of our names into a network; all of them, each of the right shape.

    Args:
        network: receives the weights in its own type.
        tensors: by our names.
        source: where they come from, for the message.

    Raises:
        CheckpointError: the first tensor that is missing, of another shape, or unknown.
    """
    expected = network.state_dict()
    architecture = network.architecture.name
    for name, tensor in expected.items():
        if name not in tensors:
            raise CheckpointError(
                f"{source}: {name} is missing: these weights belong to another architecture than {architecture}"
            )
        if tensors[name].shape != tensor.shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(tensors[name].shape)}, {architecture} needs "
                f"{tuple(tensor.shape)}: these weights belong to another architecture"
            )
    for name in tensors:
        if name not in expected:
            raise CheckpointError(
                f"{source}: {name} is unknown: these weights belong to another architecture than {architecture}"
            )
    network.load_state_dict(dict(tensors))


def sha256(path: Path) -> str:
    """Hex digest of a file's content.

    Raises:
        CheckpointError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    return digest.hexdigest()


def _half(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.detach().cpu().contiguous()
    half = tensor.detach().to("cpu", torch.float16, memory_format=torch.contiguous_format)
    if not bool(torch.isfinite(half).all()):
        raise CheckpointError(f"{name}: holds values that are no numbers in fp16: train again from before they arose")
    return half


def _as_yaml(file: ModelFile) -> str:
    return str(yaml.safe_dump(file.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120))


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A path in the same folder that takes the place of `target` at the end, or vanishes on an error."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp keeps others out; a model is for everybody
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
