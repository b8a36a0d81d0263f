"""A network of whole pictures as one ONNX file, checked against torch before it is put in its place.

In the file: uint8 RGB pictures of one size in; normalisation, network, temperature and merged classes inside. Two parts
take another form than they have in torch on a CPU, with the same numbers: the selective scan (`network.scan.straight`)
and the samples of the deformable attention, which are GridSample.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mfuser_ros
from mfuser_ros.checkpoints.store import written_beside
from mfuser_ros.errors import ConfigurationError, InputError, MFuserError
from mfuser_ros.inference.enlarge import probabilities
from mfuser_ros.inference.queries import Members, merging
from mfuser_ros.inference.segmenter import Segmenter, Size
from mfuser_ros.network.config import WholeInput
from mfuser_ros.network.deformable import DeformableAttention
from mfuser_ros.network.model import MFuser, assemble
from mfuser_ros.network.mvfuser import MVFuser

Output = Literal["probability", "labels"]

OPSETS = range(18, 24)  # 18 is what torch writes by itself; beyond 23 nothing was tried
EXTRA = ("onnx", "onnxscript", "onnxruntime")
LARGEST_DIFFERENCE = 1e-3  # of a probability: float32 sums in another order, through six masked layers of attention
LEAST_EQUAL = 0.999  # share of labels; a mask of the query decoder may flip where it is undecided


class Check(NamedTuple):
    """How far ONNX Runtime on the CPU and torch are apart on the same pictures."""

    difference: float  # the largest one of a probability or confidence, both 0..1
    equal: float  # share of equal labels

    @property
    def ok(self) -> bool:
        """Whether both lie within what is tolerated."""
        return self.difference <= LARGEST_DIFFERENCE and self.equal >= LEAST_EQUAL


class NoParityError(MFuserError):
    """The exported network says something else than torch."""

    def __init__(self, path: Path, check: Check) -> None:
        super().__init__(
            f"{path}: is not written: ONNX Runtime differs from torch by {check.difference:.2g} "
            f"(at most {LARGEST_DIFFERENCE:g}), {check.equal:.4%} of labels are equal (at least {LEAST_EQUAL:.1%})"
        )


class _Exportable(nn.Module):
    """From bytes to answers; what the file does."""

    def __init__(self, network: MFuser, temperature: float, members: Members | None, output: Output) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature
        self.register_buffer(
            "merging", None if members is None else merging(members, network.architecture.classes), persistent=False
        )
        self.output = output

    def forward(self, picture: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(batch, H, W, 3) uint8 RGB -> the probabilities at a quarter of it, or labels and confidence at all of it."""
        batch = picture.float().permute(0, 3, 1, 2)  # in this order: TensorRT knows bytes at the edge of a graph alone
        scores = assemble(self.network.predict(batch))
        probability = probabilities(scores, self.temperature)
        if self.merging is not None:
            probability = torch.einsum("mk,bkhw->bmhw", self.merging, probability)
        if self.output == "probability":
            return probability
        large = F.interpolate(probability, picture.shape[1:3], mode="bilinear", align_corners=False)
        best, labels = large.max(1)
        return labels.to(torch.uint8), (255 * best).round().to(torch.uint8)


def export_onnx(
    segmenter: Segmenter,
    path: str | os.PathLike[str],
    size: Size,
    *,
    batch: int = 1,
    opset: int = OPSETS[0],
    output: Output = "probability",
    pictures: Sequence[np.ndarray] = (),
) -> Check:
    """Write a network as ONNX; nothing is written if ONNX Runtime does not agree with torch.

    The Segmenter runs on the CPU afterwards as before.

    Args:
        segmenter: on the CPU; brings network, temperature and classes.
        path: of the file.
        size: height and width of the pictures that the file takes, as the network sees them.
        batch: pictures in one call.
        opset: version of ONNX's operators, one of `OPSETS`.
        output: ``probability`` (batch, K, H / 4, W / 4) float32, to be enlarged to the camera's picture before the best
            class is taken; or ``labels`` and ``confidence`` (batch, H, W) uint8 at the size of the input.
        pictures: uint8 RGB, what is compared with torch; noise if empty.

    Raises:
        ConfigurationError: the extra is missing, a setting cannot work, or the file cannot be written.
        NoParityError: the answers differ.
    """
    target = Path(path)
    _check_settings(segmenter, size, batch, opset, output)
    batches = _batches(segmenter, pictures or _noise(size), size, batch)
    exportable = _Exportable(segmenter.model, segmenter.temperature, segmenter.members, output).eval()
    try:
        with written_beside(target) as temporary:
            # torch first: its run fills the caches of places and encodings, which tracing would fill with stand-ins
            expected = [_of_torch(exportable, pictures) for pictures in batches]
            with _exportable_forms(segmenter.model):
                _write(exportable, batches[0], temporary, opset, _metadata(segmenter, size, batch, output))
            check = _compare(expected, _of_onnxruntime(temporary, batches))
            if not check.ok:
                raise NoParityError(target, check)
    except OSError as error:
        raise ConfigurationError(
            f"{target}: cannot be written ({error.strerror or error}): choose another file"
        ) from error
    return check


def _check_settings(segmenter: Segmenter, size: Size, batch: int, opset: int, output: str) -> None:
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"export needs {', '.join(missing)}: pip install 'mfuser_ros[export]'")
    architecture = segmenter.model.architecture
    if not isinstance(architecture.input, WholeInput):
        raise ConfigurationError(
            f"{segmenter.name}: slides windows over the picture, which one ONNX graph cannot: export a model that sees "
            "whole pictures, such as small"
        )
    multiple = architecture.input.multiple
    if any(side < 64 or side % multiple for side in size):
        near = "x".join(str(max(64, round(side / multiple) * multiple)) for side in reversed(size))
        raise ConfigurationError(
            f"size {size[1]}x{size[0]}: both sides must be 64 or more and multiples of {multiple}: {near} is near"
        )
    if segmenter.device != "cpu":
        raise ConfigurationError(f"export from {segmenter.device}: load the model on the CPU")
    if batch < 1:
        raise ConfigurationError(f"batch {batch}: must be 1 or more")
    if opset not in OPSETS:
        raise ConfigurationError(f"opset {opset}: choose {OPSETS[0]} to {OPSETS[-1]}")
    if output not in get_args(Output):
        raise ConfigurationError(f"output {output!r}: choose {' or '.join(get_args(Output))}")


@contextmanager
def _exportable_forms(network: MFuser) -> Iterator[None]:
    """Scan and deformable attention in the forms that ONNX has operators for; afterwards as they were."""
    fusers = [module for module in network.modules() if isinstance(module, MVFuser)]
    attentions = [module for module in network.modules() if isinstance(module, DeformableAttention)]
    backends = [fuser.backend for fuser in fusers]
    for fuser in fusers:
        fuser.backend = "straight"
    for attention in attentions:
        attention.sampler = "grid"
    try:
        yield
    finally:
        for fuser, backend in zip(fusers, backends, strict=True):
            fuser.backend = backend
        for attention in attentions:
            attention.sampler = "auto"


def _write(exportable: _Exportable, pictures: np.ndarray, path: Path, opset: int, metadata: dict[str, str]) -> None:
    import onnx  # noqa: PLC0415  # optional extra

    names = ["probability"] if exportable.output == "probability" else ["labels", "confidence"]
    with _silenced():
        program = torch.onnx.export(
            exportable,
            (torch.from_numpy(pictures),),
            input_names=["picture"],
            output_names=names,
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # with dynamo
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where each node came from: lines and paths of this machine
        node.doc_string = ""
    found = next((entry.version for entry in model.opset_import if not entry.domain), None)
    if found != opset:
        raise ConfigurationError(f"opset {opset}: the network was written in opset {found}: choose {found}")
    model.producer_name, model.producer_version = "mfuser_ros", mfuser_ros.__version__
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, path)


@contextmanager
def _silenced() -> Iterator[None]:
    """Without the exporter's remarks about its own doings."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _metadata(segmenter: Segmenter, size: Size, batch: int, output: Output) -> dict[str, str]:
    """What a deployer must know, as strings; lists as JSON."""
    return {
        "name": segmenter.name,
        "sha256": segmenter.sha256,  # of the weights that it was made from
        "version": mfuser_ros.__version__,
        "classes": json.dumps([entry.name for entry in segmenter.vocabulary.classes]),
        "palette": json.dumps([list(entry.colour) for entry in segmenter.vocabulary.classes]),
        "input": f"uint8 RGB, {batch} x {size[0]} x {size[1]} x 3; normalisation is inside",
        "width": str(size[1]),
        "height": str(size[0]),
        "output": output,
        "temperature": f"{segmenter.temperature:g}",  # is inside
        "threshold": f"{segmenter.default_threshold:g}",  # is not: below it the model does not know (255)
    }


def _noise(size: Size) -> list[np.ndarray]:
    """Two smooth pictures."""
    height, width = size
    coarse = np.random.default_rng(0).integers(0, 256, (2, height // 16, width // 16, 3), np.uint8)
    return [np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC)) for part in coarse]


def _batches(segmenter: Segmenter, pictures: Sequence[np.ndarray], size: Size, batch: int) -> list[np.ndarray]:
    """(batch, H, W, 3) uint8 each; the first pictures again where the last batch is not full."""
    if not all(isinstance(picture, np.ndarray) for picture in pictures):
        raise InputError("pictures: give uint8 RGB arrays (H, W, 3)")
    stretched = segmenter.prepare(list(pictures), size).permute(0, 2, 3, 1).byte().numpy()
    rows = np.arange(-(-len(stretched) // batch) * batch) % len(stretched)
    return [np.ascontiguousarray(stretched[part]) for part in rows.reshape(-1, batch)]


def _of_torch(exportable: _Exportable, pictures: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        answer = exportable(torch.from_numpy(pictures))
    return [part.numpy() for part in ((answer,) if isinstance(answer, Tensor) else answer)]


def _of_onnxruntime(path: Path, batches: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    import onnxruntime  # noqa: PLC0415  # optional extra

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    return [session.run(None, {"picture": pictures}) for pictures in batches]


def _compare(expected: list[list[np.ndarray]], found: list[list[np.ndarray]]) -> Check:
    """Of probabilities, or of labels and confidence in steps of 1/255."""
    difference, equal = 0.0, []
    for ours, theirs in zip(expected, found, strict=True):
        (labels, surety), (other_labels, other_surety) = _read(ours), _read(theirs)
        apart = np.abs(surety - other_surety).max()
        if len(ours) == 2:  # a probability between two steps may be rounded either way
            apart = max(0.0, apart - 1 / 255)
        difference = max(difference, float(apart))
        equal.append(float((labels == other_labels).mean()))
    return Check(difference, float(np.mean(equal)))


def _read(answer: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities or confidence 0..1."""
    if len(answer) == 2:
        return answer[0], answer[1].astype(np.float64) / 255
    return answer[0].argmax(1), answer[0].astype(np.float64)
