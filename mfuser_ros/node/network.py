"""The Segmenter as the node uses it: what fails becomes a fault of one picture, and batches shrink with the memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from mfuser_ros.errors import InferenceError
from mfuser_ros.node.health import Fault, Level
from mfuser_ros.node.lines import one_line

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmentation, Segmenter  # torch is loaded when the node is configured


class Network:
    """Runs batches.

    Attributes:
        batch_limit: most pictures in one call; falls when the memory of the device does not suffice.

    Args:
        segmenter: ready to work.
        batch_limit: at first.
    """

    def __init__(self, segmenter: Segmenter, batch_limit: int) -> None:
        self._segmenter = segmenter
        self.batch_limit = batch_limit

    def segment(self, pictures: Sequence[np.ndarray], threshold: float) -> list[Segmentation | Fault]:
        """One result or fault for each picture.

        A failed batch is tried again picture by picture, so that one picture does not blind the other cameras; not
        where memory was short: then the pictures have failed, and the next batch is smaller.

        Args:
            pictures: uint8 RGB (H, W, 3); not more than `batch_limit`.
            threshold: probability below which a pixel is unknown.
        """
        if self._segmenter.threshold != threshold:
            self._segmenter.threshold = threshold
        try:
            return list(self._call(pictures))
        except Exception as error:  # torch raises many kinds, out of memory among them
            fault = Fault(Level.ERROR, "inference", one_line(error))
            if is_out_of_memory(error):
                self.batch_limit = max(1, len(pictures) // 2)
                error.__traceback__ = None  # its frames hold the tensors
                _free_memory()
                return [fault] * len(pictures)
            if len(pictures) == 1:
                return [fault]
        return [answer for picture in pictures for answer in self.segment([picture], threshold)]

    def _call(self, pictures: Sequence[np.ndarray]) -> Sequence[Segmentation]:
        results = [self._segmenter(pictures[0])] if len(pictures) == 1 else self._segmenter(list(pictures))
        for picture, result in zip(pictures, results, strict=True):
            for array in (result.mask, result.confidence):
                if array.shape != picture.shape[:2] or array.dtype != np.uint8:
                    raise InferenceError(f"result is {array.dtype} {array.shape} for a picture of {picture.shape[:2]}")
        return results


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that host or device memory was short."""
    # torch.OutOfMemoryError by its name: torch need not be loaded; older drivers raise a plain RuntimeError
    return (
        isinstance(error, MemoryError)
        or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
        or ("out of memory" in str(error).lower())
    )


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with suppress(RuntimeError):  # after a fault of the device nothing can be freed, and the next batch tells it
            torch.cuda.empty_cache()
