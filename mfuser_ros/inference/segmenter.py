"""The Segmenter: pictures in, masks out, on one device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, overload

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.errors import ConfigurationError, InferenceError, InputError
from mfuser_ros.inference.enlarge import best_class, probabilities
from mfuser_ros.inference.exported import ExportedNetwork
from mfuser_ros.inference.queries import Members, merging
from mfuser_ros.inference.segmentation import Segmentation
from mfuser_ros.inference.windows import slide
from mfuser_ros.network import fused
from mfuser_ros.network.config import WholeInput
from mfuser_ros.network.model import MFuser, assemble
from mfuser_ros.network.precision import lower
from mfuser_ros.vocabulary import UNKNOWN, Vocabulary

if TYPE_CHECKING:
    from mfuser_ros.inference.engine import Engine

Precision = Literal["float32", "float16", "bfloat16", "float8"]
Size = tuple[int, int]  # height, width

_WINDOWS = 18  # of sliding windows on a GPU at once: a frame of 1024x2048 in one batch
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8": torch.bfloat16,  # of all but the towers' linear maps
}


@dataclass(frozen=True)
class Timing:
    """Wall time of one call, milliseconds."""

    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float


class Segmenter:
    """A network that is ready to segment pictures.

    Attributes:
        model: the network, in eval mode on `device`.
        name: of the model.
        sha256: of its weights.
        vocabulary: what the ids of a mask mean.
        device: torch's name, such as ``cpu`` or ``cuda:0``.
        precision: of the network's arithmetic.
        threshold: probability below which a pixel is unknown; 0 turns it off; may be set at any time.
        default_threshold: the model's own threshold.
        members: ids of the network's outputs that each class of the vocabulary is made of; None: one for one.
        timing: of the last call; None before the first.
    """

    def __init__(
        self,
        model: MFuser,
        vocabulary: Vocabulary,
        *,
        name: str,
        sha256: str,
        device: torch.device,
        precision: Precision,
        threshold: float,
        default_threshold: float,
        temperature: float,
        input_size: Size | None,
        members: Members | None = None,
        exported: ExportedNetwork | None = None,
    ) -> None:
        """Take over a loaded network; `mfuser_ros.load` is the usual way here.

        Args:
            model: moved to `device` and put into eval mode.
            vocabulary: one class for each output of the network, or for each entry of `members`.
            name: of the model.
            sha256: of its weights.
            device: where the network runs.
            precision: float32 on a CPU.
            threshold: probability below which a pixel is unknown, 0..1.
            default_threshold: the model's own.
            temperature: of the probabilities.
            input_size: height and width that every picture is stretched to; None: as the architecture says.
            members: outputs of the network whose probabilities add up to each class; None: one for one.
            exported: gives the probabilities in the place of `model`, at `input_size`.

        Raises:
            ConfigurationError: a size or a threshold that cannot work.
        """
        self.model = model.to(device).eval().requires_grad_(False)
        if device.type == "cpu":
            # the convolutions of small towers run faster with the channels last
            for module in self.model.modules():
                if isinstance(module, nn.Conv2d):
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        elif precision != "float32":
            lower(self.model, DTYPES[precision])
        self._windows = 1 if device.type == "cpu" else _WINDOWS
        self.engine = self._make_engine(device, precision)
        self.vocabulary = vocabulary
        self.name = name
        self.sha256 = sha256
        self.device = str(device)
        self.precision = precision
        self.default_threshold = default_threshold
        self.temperature = temperature
        self._device = device
        self._input = model.architecture.input
        self._input_size = self._checked_input_size(input_size)
        classes = model.architecture.classes
        self.members = members
        self._exported = exported
        self._merging = None if members is None else merging(members, classes).to(device)
        self._complete = members is None or sum(map(len, members)) == classes
        self.threshold = threshold
        self.timing: Timing | None = None

    @property
    def threshold(self) -> float:
        """Probability below which a pixel is unknown."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ConfigurationError(f"threshold {value}: must lie between 0 (nothing is unknown) and 1")
        self._threshold = float(value)

    def _make_engine(self, device: torch.device, precision: Precision) -> Engine | None:
        """The engine of a GPU that can compile kernels; None elsewhere."""
        if device.type != "cuda" or not fused.triton_is_there():
            return None
        from mfuser_ros.inference.engine import Engine, speed_up  # noqa: PLC0415  # a CPU does without

        speed_up(self.model, device, float8=precision == "float8")
        return Engine(self._probabilities_of, device, shrink=self._take_fewer_windows)

    def _take_fewer_windows(self) -> bool:
        """Halve the windows that run at once; False if that changes nothing."""
        if isinstance(self._input, WholeInput) or self._windows == 1:
            return False
        self._windows //= 2
        return True

    def _checked_input_size(self, size: Size | None) -> Size | None:
        if size is None:
            return None
        if not isinstance(self._input, WholeInput):
            raise ConfigurationError(f"input_size {size}: {self.name} slides windows over the picture: leave it out")
        if any(side < 64 or side % self._input.multiple for side in size):
            raise ConfigurationError(
                f"input_size {size}: both sides must be 64 or more and multiples of {self._input.multiple}"
            )
        return size

    def input_size_for(self, height: int, width: int) -> Size:
        """Height and width that the network sees for a picture of this size."""
        if self._input_size is not None:
            return self._input_size
        if isinstance(self._input, WholeInput):
            scale = self._input.long_side / max(height, width)
            multiple = self._input.multiple
            sides = (max(multiple, round(side * scale / multiple) * multiple) for side in (height, width))
            return (next(sides), next(sides))
        scale = max(1.0, self._input.crop / min(height, width))  # a side shorter than a window is enlarged
        return (round(height * scale), round(width * scale))

    @overload
    def __call__(self, picture: np.ndarray) -> Segmentation: ...

    @overload
    def __call__(self, picture: Sequence[np.ndarray]) -> list[Segmentation]: ...

    def __call__(self, picture: np.ndarray | Sequence[np.ndarray]) -> Segmentation | list[Segmentation]:
        """Segment one picture, or several in one batch.

        Args:
            picture: uint8 RGB (H, W, 3), or a list of such pictures, whose sizes may differ.

        Returns:
            One Segmentation at the size of the picture, or a list in the same order.

        Raises:
            InputError: not a uint8 RGB array.
            InferenceError: the network gave scores that are not numbers.
        """
        if isinstance(picture, np.ndarray):
            return self._segment([picture])[0]
        return self._segment(list(picture))

    def probabilities(self, picture: np.ndarray, size: Size) -> np.ndarray:
        """Probability of every class, float32 (K, height, width), at the given size (height, width).

        For scores of merged classes: the probabilities of the members add up. They sum to 1 over the vocabulary,
        or to less where it leaves out classes of the model.
        """
        _check_picture(picture)
        with torch.inference_mode():
            return _enlarged(self._probabilities([picture], self.input_size_for(*picture.shape[:2])), size)

    def with_probabilities(self, picture: np.ndarray, size: Size) -> tuple[Segmentation, np.ndarray]:
        """The Segmentation of a picture and, from the same pass, what `probabilities` gives for it."""
        _check_picture(picture)
        with torch.inference_mode():
            begin = time.perf_counter()
            batch = self.prepare([picture], self.input_size_for(*picture.shape[:2]))
            prepared = time.perf_counter()
            small = self._infer(batch)
            inferred = time.perf_counter()
            result = self._finish(picture, small[0])
            large = _enlarged(small, size)
        self.timing = Timing(*(np.diff([begin, prepared, inferred, time.perf_counter()]) * 1e3).tolist())
        return result, large

    def prepare(self, pictures: list[np.ndarray], size: Size) -> Tensor:
        """What the network gets: (batch, 3, h, w) RGB 0..255 float on the device, channels last in memory.

        Args:
            pictures: uint8 RGB.
            size: height and width that each is stretched to.

        Raises:
            InputError: not a uint8 RGB array.
        """
        for picture in pictures:
            _check_picture(picture)
        resized = np.stack([_stretch(picture, size) for picture in pictures])
        return torch.from_numpy(resized).to(self._device).permute(0, 3, 1, 2).float()

    def warm_up(self, height: int, width: int, *, batch: int = 1, wait: bool = False) -> None:
        """Run on grey pictures of this size, so that the first real ones are not late.

        Args:
            height: of the pictures.
            width: of the pictures.
            batch: pictures at once.
            wait: return only when pictures of this size run as fast as they ever will; on a GPU kernels are compiled
                and a graph is recorded first, which takes seconds. Without it that goes on beside.
        """
        if wait and self.engine is not None:
            self.engine.prepare(batch, (height, width), self.input_size_for(height, width))
        else:
            self([np.full((height, width, 3), 127, np.uint8)] * batch)

    @property
    def state(self) -> str:
        """How pictures run, for diagnostics: eager, or what the engine of a GPU tells."""
        return "eager" if self.engine is None else str(self.engine)

    def _segment(self, pictures: list[np.ndarray]) -> list[Segmentation]:
        for picture in pictures:
            _check_picture(picture)
        if self.engine is not None:
            return self._segment_on_gpu(self.engine, pictures)
        groups: dict[Size, list[int]] = {}
        for index, picture in enumerate(pictures):
            groups.setdefault(self.input_size_for(*picture.shape[:2]), []).append(index)
        results: dict[int, Segmentation] = {}
        spent = np.zeros(3)
        with torch.inference_mode():
            for size, members in groups.items():
                begin = time.perf_counter()
                batch = self.prepare([pictures[index] for index in members], size)
                prepared = time.perf_counter()
                probability = self._infer(batch)
                inferred = time.perf_counter()
                for index, of_one in zip(members, probability, strict=True):
                    results[index] = self._finish(pictures[index], of_one)
                spent += np.diff([begin, prepared, inferred, time.perf_counter()]) * 1e3
        self.timing = Timing(*spent.tolist())
        return [results[index] for index in range(len(pictures))]

    def _segment_on_gpu(self, engine: Engine, pictures: list[np.ndarray]) -> list[Segmentation]:
        groups: dict[Size, list[int]] = {}
        for index, picture in enumerate(pictures):
            groups.setdefault((picture.shape[0], picture.shape[1]), []).append(index)
        results: dict[int, Segmentation] = {}
        begin = time.perf_counter()
        for size, members in groups.items():
            answers = engine([pictures[index] for index in members], self.input_size_for(*size), self._threshold)
            for index, answer in zip(members, answers, strict=True):
                if not answer.finite:
                    raise self._not_numbers()
                results[index] = Segmentation(
                    pictures[index], answer.mask, answer.confidence, answer.labels, self.vocabulary
                )
        # copies, resizing and best class are part of one graph
        self.timing = Timing(0.0, (time.perf_counter() - begin) * 1e3, 0.0)
        return [results[index] for index in range(len(pictures))]

    def _probabilities(self, pictures: list[np.ndarray], size: Size) -> Tensor:
        return self._infer(self.prepare(pictures, size))

    def _infer(self, batch: Tensor) -> Tensor:
        """(batch, 3, h, w) -> (batch, K, h', w') probabilities on the grid of the masks, checked to be numbers."""
        probability = self._probabilities_of(batch)
        if not bool(torch.isfinite(probability.sum())):
            raise self._not_numbers()
        return probability

    def _probabilities_of(self, batch: Tensor) -> Tensor:
        """The same without the check, which waits for the device."""
        if self._exported is not None:
            return self._exported(batch)
        if isinstance(self._input, WholeInput):
            scores = assemble(self.model.predict(batch))
        else:
            scores = slide(
                lambda crops: assemble(self.model.predict(crops)),
                batch,
                self._input.crop,
                self._input.stride,
                batch=self._windows,
            )
        probability = probabilities(scores.float(), self.temperature)
        if self._merging is not None:
            probability = torch.einsum("mk,bkhw->bmhw", self._merging, probability)
        return probability

    def _not_numbers(self) -> InferenceError:
        return InferenceError(
            f"{self.name}: scores are not numbers in {self.precision}: check the weights, or choose float32"
        )

    def _finish(self, picture: np.ndarray, probability: Tensor) -> Segmentation:
        height, width = picture.shape[:2]
        least_sum = 1.0 if self._complete else float(probability.sum(0).min())
        labels, best = best_class(probability, height, width, least_sum=least_sum)
        confidence = cv2.convertScaleAbs(best, alpha=255)
        mask = labels
        if self._threshold > 0:
            mask = cv2.bitwise_or(labels, cv2.compare(best, self._threshold, cv2.CMP_LT))  # 255 where unsure
        return Segmentation(picture, mask, confidence, labels, self.vocabulary)


def _enlarged(probability: Tensor, size: Size) -> np.ndarray:
    """(1, K, h, w) to float32 (K, height, width)."""
    return F.interpolate(probability, size, mode="bilinear", align_corners=False)[0].cpu().numpy()


def _check_picture(picture: np.ndarray) -> None:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        found = picture.dtype if isinstance(picture, np.ndarray) else type(picture).__name__
        raise InputError(f"picture of {found}: give a uint8 RGB array (H, W, 3)")
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise InputError(f"picture of shape {picture.shape}: give a uint8 RGB array (H, W, 3)")


def _stretch(picture: np.ndarray, size: Size) -> np.ndarray:
    height, width = size
    if picture.shape[:2] == size:
        return picture
    shrinks = height * width < picture.shape[0] * picture.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    stretched: np.ndarray = cv2.resize(picture, (width, height), interpolation=interpolation)
    return stretched


assert UNKNOWN == 255  # `_finish` relies on 255 in both mask and comparison
