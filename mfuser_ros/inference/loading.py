"""From the name of a model to a Segmenter that is ready."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from mfuser_ros import vocabulary as vocabularies
from mfuser_ros.checkpoints import load_model, locate
from mfuser_ros.checkpoints.token_ids import tokens_beside
from mfuser_ros.errors import ConfigurationError, DeviceError, VocabularyError
from mfuser_ros.inference.exported import ExportedNetwork
from mfuser_ros.inference.queries import adopt
from mfuser_ros.inference.segmenter import Precision, Segmenter, Size
from mfuser_ros.network import fused
from mfuser_ros.network.optimize import optimize
from mfuser_ros.vocabulary import Vocabulary


def load(
    model: str | os.PathLike[str] = "small",
    *,
    device: str = "auto",
    threshold: float | None = None,
    input_size: Size | None = None,
    precision: Precision | Literal["auto"] = "auto",
    vocabulary: str | os.PathLike[str] | Vocabulary | None = None,
    onnx: str | os.PathLike[str] | None = None,
) -> Segmenter:
    """Load a model and make it ready.

    Args:
        model: name of a model in models/, or path of its .safetensors file with the .yaml beside it.
        device: auto (a GPU if there is one), cpu, cuda, or cuda:1.
        threshold: probability below which a pixel is unknown (255); None: the model's own; 0 turns it off.
        input_size: height and width that the network sees; None: as the model says.
        precision: auto is float32 on a CPU and float16 on a GPU; float8 is bfloat16 with the towers' linear maps in
            e4m3.
        vocabulary: what the ids of a mask shall mean; None or empty: the shipped one. Names, colours and roles are
            free. The queries of a class are names of the model's classes, which are merged: their probabilities add
            up. What no class uses counts as unknown, the others become no surer by it. A model with a text tower
            takes any other words, too (`mfuser_ros.inference.queries`); SigLIP's looks up their ids in
            NAME.tokens.model, .yaml or .json beside the weights.
        onnx: file of `mfuser export` for the same weights and vocabulary, which OpenVINO runs in the place of torch; on
            a CPU alone, at the file's size, in float32 or bfloat16.

    Raises:
        CheckpointError: weights are missing, corrupt, or of another architecture.
        DeviceError: the device does not exist here.
        ConfigurationError: a setting cannot work.
        VocabularyError: the vocabulary is malformed, or speaks of classes that the model cannot know.
    """
    chosen = choose_device(device)
    arithmetic = choose_precision(precision, chosen, exported=onnx is not None)
    network, description = load_model(model)
    if not vocabulary:
        vocabulary = vocabularies.load()
        if vocabulary.names != description.vocabulary:
            raise VocabularyError(
                f"{description.name}: was made for other classes than the shipped vocabulary "
                f"({', '.join(description.vocabulary)}): give a vocabulary with these"
            )
    elif not isinstance(vocabulary, Vocabulary):
        vocabulary = vocabularies.load(Path(vocabulary))
    members = adopt(network, description, vocabulary, tokens_beside(locate(model)))
    exported = None
    if onnx is not None:
        exported = ExportedNetwork(onnx, sha256=description.sha256, classes=vocabulary.names, precision=arithmetic)
        if input_size not in (None, exported.size):
            raise ConfigurationError(f"input_size {input_size}: {onnx} is for {exported.size}: leave it out")
        input_size = exported.size
    return Segmenter(
        optimize(network),
        vocabulary,
        name=description.name,
        sha256=description.sha256,
        device=chosen,
        precision=arithmetic,
        threshold=description.threshold if threshold is None else threshold,
        default_threshold=description.threshold,
        temperature=description.temperature,
        input_size=input_size,
        members=members,
        exported=exported,
    )


def choose_device(name: str) -> torch.device:
    """The torch device that a name stands for.

    Raises:
        DeviceError: a GPU is asked for that this machine does not have, or the name is none of ours.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (index and not index.isdigit()):
        raise DeviceError(f"device {name!r}: is unknown: choose auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise DeviceError(f"device {name!r}: this machine has {count} usable GPUs: choose cpu or auto")
    return torch.device("cuda", int(index or 0))


def choose_precision(
    precision: Precision | Literal["auto"], device: torch.device, *, exported: bool = False
) -> Precision:
    """The precision that a name stands for on a device.

    Args:
        precision: as `load` takes it.
        device: where the network shall run.
        exported: whether OpenVINO runs an exported file; it has bfloat16 on a CPU, too.

    Raises:
        ConfigurationError: there is no such precision, or the device does not run it.
    """
    if exported and device.type != "cpu":
        raise ConfigurationError(f"onnx: runs on a CPU, device is {device}: choose cpu or leave it out")
    if precision == "auto":
        return "float32" if device.type == "cpu" else "float16"
    if precision not in ("float32", "float16", "bfloat16", "float8"):
        raise ConfigurationError(f"precision {precision!r}: choose auto, float32, float16, bfloat16 or float8")
    if device.type == "cpu" and precision != "float32" and not (exported and precision == "bfloat16"):
        raise ConfigurationError(f"precision {precision}: a CPU runs float32 alone: choose float32 or auto")
    if precision == "float8" and (torch.cuda.get_device_capability(device) < (8, 9) or not fused.triton_is_there()):
        raise ConfigurationError("precision float8: needs a GPU of compute capability 8.9 and triton: choose auto")
    return precision
