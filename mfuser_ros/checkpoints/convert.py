"""From published checkpoints to our model files.

A .pth is a pickle, which could run any code while it is read. Torch's weights-only reader is used. It builds tensors,
their sizes and types, and plain values (None, bool, int, float, str, bytes, list, tuple, dict, OrderedDict, Counter,
set), and refuses every other class and function by its name. The published files hold no more: beside the state dict
there is a `meta` of plain text.
"""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints.keymap import LAYOUTS, KeyMap, Layout, find_variant, map_keys
from mfuser_ros.checkpoints.store import (
    WEIGHTS,
    ModelCard,
    ModelFile,
    TokenIds,
    class_token_ids,
    read_tensors,
    save_model,
    sha256,
)
from mfuser_ros.checkpoints.token_ids import keep_beside, read_token_ids
from mfuser_ros.errors import CheckpointError, ConfigurationError
from mfuser_ros.network.config import PRESETS, Architecture, DroppedText, SiglipText
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.text import TextEncoder

Fit = Callable[[str, Tensor, torch.Size], Tensor]

_NO_TEXT = "text tower, left out: the embeddings of the class names are stored"
LICENCE = "not stated by the authors of the checkpoint: for your own use, do not pass on"


@dataclass(frozen=True)
class Conversion:
    """A model file that was made, and what was left out on the way."""

    preset: str
    file: ModelFile
    path: Path
    tensors: int
    dropped: dict[str, str]  # published name -> reason


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    preset: str | None = None,
    licence: str = LICENCE,
    tokens: Path | None = None,
    drop_text: bool = False,
) -> Conversion:
    """Turn a published MFuser checkpoint into NAME.safetensors and NAME.yaml.

    Args:
        source: .pth as published (read without running code in it), or .safetensors with the same names.
        target: path of the .safetensors to write.
        preset: the variant that was published; found by its names if None.
        licence: of the weights; the published ones state none.
        tokens: file with the token ids of the class names, or a sentencepiece model that gives them (see
            `read_token_ids`). `siglip-l` needs one, because its tokenizer does not ship with us; the ids go into the
            YAML, and the file is kept beside it for other words. The other variants have their tokenizer.
        drop_text: write the embeddings of the class names in place of the text tower; the model then knows no other
            words.

    Raises:
        CheckpointError: the preset has no layout, the file is missing, corrupt or holds more than tensors, or its
            weights are not exactly those of the preset.
        ConfigurationError: token ids are missing, are not wanted, or do not fit the text tower.
    """
    if preset is not None and preset not in LAYOUTS:
        raise CheckpointError(f"preset {preset!r}: cannot be converted: choose one of {', '.join(LAYOUTS)}")
    path = Path(source)
    published = read_published(path)
    preset = preset or find_variant(published, source=str(path))
    architecture = PRESETS[preset]
    names = vocabulary.load().names
    token_ids = token_ids_for(architecture, names, tokens)
    with torch.device("meta"):  # only names and shapes are needed; the weights come from the file
        network = MFuser(architecture)
    keys = map_keys(published, LAYOUTS[preset], source=str(path))
    ours = translate(published, keys, network.state_dict(), preset=architecture.name, source=str(path))
    network.load_state_dict(ours, assign=True)
    assert isinstance(network.text, TextEncoder)  # of every published variant
    # refuses ids that its vocabulary does not have
    network.text.set_token_ids(class_token_ids(network.text.config, names, token_ids))
    dropped = dict(keys.dropped)
    if drop_text:
        dropped |= {their: _NO_TEXT for their, our in keys.renamed.items() if our.startswith("text.")}
        token_ids = None
        replace_text(network)
    card = ModelCard(
        name=Path(target).stem,
        architecture=network.architecture,
        vocabulary=names,
        token_ids=token_ids,
        threshold=0.0,  # neither was ever fitted for these weights
        temperature=1.0,
        licence=licence,
        provenance=f"converted by {this_tool()} from {path.name}, SHA-256 {sha256(path)}",
    )
    file = save_model(network, card, target)
    if tokens is not None and not drop_text:
        keep_beside(tokens, Path(target))
    return Conversion(preset, file, Path(target), len(keys.renamed) + len(keys.dropped) - len(dropped), dropped)


def replace_text(network: MFuser) -> None:
    """Put the embeddings of its classes in the place of a network's text tower, and into its architecture.

    Raises:
        ConfigurationError: the network has no text tower, or that has no token ids.
    """
    if not isinstance(network.text, TextEncoder):
        raise ConfigurationError(f"{network.architecture.name}: has no text tower to leave out")
    network.text = network.text.dropped()
    network.architecture = network.architecture.model_copy(update={"text": DroppedText()})


def this_tool() -> str:
    """Command, version and date, for the provenance of a file."""
    version = sys.modules["mfuser_ros"].__version__  # an import would reach up to what the package offers
    return f"`mfuser convert` {version} on {datetime.now(timezone.utc):%Y-%m-%d}"


def token_ids_for(architecture: Architecture, names: Sequence[str], tokens: Path | None) -> TokenIds | None:
    """Token ids of class names from a file, for a text tower whose tokenizer does not ship with us; else None.

    Raises:
        ConfigurationError: the file is missing, is not wanted, or does not hold the ids.
    """
    text = architecture.text
    if isinstance(text, SiglipText):
        if tokens is None:
            raise ConfigurationError(
                f"{architecture.name}: its tokenizer does not ship with us: give --tokens, the token ids of the class "
                "names or SigLIP's sentencepiece model"
            )
        return read_token_ids(tokens, names, text.tokens)
    if tokens is not None:
        raise ConfigurationError(f"{tokens}: {architecture.name} has its tokenizer with it: leave --tokens out")
    return None


def read_published(path: Path) -> dict[str, Tensor]:
    """The weights of a published file: ``state_dict`` is opened, a leading ``module.`` stripped.

    Raises:
        CheckpointError: the file is missing or corrupt, holds anything that would run code, or no weights.
    """
    content = read_tensors(path) if path.suffix == WEIGHTS else _unpickled(path)
    inner = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(inner, Mapping) or not inner:
        raise CheckpointError(f"{path}: holds no state dict: give a published checkpoint")
    weights: dict[str, Tensor] = {}
    for name, value in inner.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {name} is no tensor: give a published checkpoint")
        weights[name.removeprefix("module.")] = value
    return weights


def to_ours(
    published: Mapping[str, Tensor], architecture: Architecture, layout: Layout, *, source: str
) -> dict[str, Tensor]:
    """Weights by our names, exactly those of the architecture's network.

    Args:
        published: weights by published names.
        architecture: whose network they are for.
        layout: of the published names.
        source: where they come from, for the message.

    Raises:
        CheckpointError: a weight is unknown, of another shape, or missing; the text names the first.
    """
    with torch.device("meta"):
        expected = MFuser(architecture).state_dict()
    keys = map_keys(published, layout, source=source)
    return translate(published, keys, expected, preset=architecture.name, source=source)


def gather(published: Mapping[str, Tensor], renamed: Mapping[str, str], *, source: str) -> dict[str, Tensor]:
    """Weights by our names, their parts stacked and their matrices turned as the marks of the names say.

    Args:
        published: weights by published names.
        renamed: published names -> ours with marks, as `map_keys` gives them.
        source: where the weights come from, for the message.

    Raises:
        CheckpointError: a part is missing.
    """
    marks: dict[str, dict[str, str]] = {}
    for their, target in renamed.items():
        our, _, mark = target.partition("@")
        marks.setdefault(our, {})[mark] = their
    ours: dict[str, Tensor] = {}
    for our, parts in marks.items():
        if "" in parts:
            ours[our] = published[parts[""]]
        elif "T" in parts:
            ours[our] = published[parts["T"]].T.contiguous()
        else:
            stacked = ("q", "kv") if "kv" in parts else ("q", "k", "v")
            for part in stacked:
                if part not in parts:
                    raise CheckpointError(f"{source}: part {part} of {our} is missing beside {min(parts.values())}")
            ours[our] = torch.cat([published[parts[part]] for part in stacked])
    return ours


def translate(
    published: Mapping[str, Tensor],
    keys: KeyMap,
    expected: Mapping[str, Tensor],
    *,
    preset: str,
    source: str,
    fit: Fit | None = None,
) -> dict[str, Tensor]:
    """Exactly the expected weights, by our names.

    Args:
        published: weights by published names.
        keys: what becomes of each name.
        expected: by our names, of the right shapes; `meta` tensors will do.
        preset: name of the network, for the message.
        source: where the weights come from, for the message.
        fit: given our name, a weight and the shape that it should have, makes it fit; by default nothing does.

    Raises:
        CheckpointError: a weight is unknown, of another shape, or missing; the text names the first.
    """
    theirs = {our.partition("@")[0]: their for their, our in keys.renamed.items()}
    ours = gather(published, keys.renamed, source=source)
    for our, tensor in ours.items():
        if our not in expected:
            raise CheckpointError(
                f"{source}: {theirs[our]} is no weight of {preset}: choose the preset that it belongs to"
            )
        shape = expected[our].shape
        missing_axes = len(shape) - tensor.ndim  # published without batch axes
        fitted = tensor.reshape((1,) * missing_axes + tensor.shape)
        if fit is not None:
            fitted = fit(our, fitted, shape)
        if fitted.shape != shape:
            raise CheckpointError(
                f"{source}: {theirs[our]} has shape {tuple(tensor.shape)}, {preset} needs {tuple(shape)}: "
                "choose the preset that it belongs to"
            )
        ours[our] = fitted
    for our, tensor in expected.items():
        if our in ours:
            continue
        if our.endswith("num_batches_tracked"):  # counts training steps; older files lack it
            ours[our] = torch.zeros(tensor.shape, dtype=tensor.dtype)
            continue
        raise CheckpointError(f"{source}: the weight that we call {our} is missing: the file is no whole {preset}")
    return ours


def _unpickled(path: Path) -> object:
    try:
        # mapped, so that an optimizer's state beside the weights never comes into memory; old files are no archives
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0].strip()
        raise CheckpointError(
            f"{path}: holds more than tensors and plain values, which could run code, or is corrupt ({reason}): "
            "save its state_dict as .safetensors on a machine where you trust it"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: is no whole checkpoint ({reason}): fetch it again") from error
