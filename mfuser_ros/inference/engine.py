"""The network on a CUDA device: one recorded graph per shape, from bytes of pictures to bytes of masks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mfuser_ros.network.fused.sampling import best_class, shrinking

Size = tuple[int, int]  # height, width
State = Literal["eager", "recorded"]
_SHAPES = 8  # graphs that are kept; each holds its buffers


@dataclass(frozen=True)
class Answer:
    """Of one picture, uint8 (H, W) each."""

    labels: np.ndarray
    confidence: np.ndarray
    mask: np.ndarray
    finite: bool  # whether the scores were numbers


class Engine:
    """Runs a network on pictures of one shape at a time.

    The first call for a shape runs kernel by kernel (and compiles what Triton has not compiled yet), the second
    records a CUDA graph, all later ones replay it: copy in, resize, network, best class, copy out.

    Attributes:
        state: of the shape that ran last.
        largest_batch: pictures at once; a batch that did not fit into the memory halves it.
    """

    def __init__(self, infer: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """Take over a network.

        Args:
            infer: (batch, 3, h, w) RGB 0..255 on the device -> (batch, K, h', w') float32 probabilities; must not
                wait for the device.
            device: a GPU.
        """
        self._infer = infer
        self._device = device
        self._plans: OrderedDict[tuple[int, Size, Size], _Plan] = OrderedDict()
        self._pool: Any = None  # torch's handle, whose type has no public name
        self._threshold = torch.zeros((), device=device)
        self._threshold_value = 0.0
        self.state: State = "eager"
        self.largest_batch: int | None = None

    def __call__(self, pictures: Sequence[np.ndarray], size: Size, threshold: float) -> list[Answer]:
        """Segment pictures of one shape.

        Args:
            pictures: uint8 RGB (H, W, 3) each.
            size: height and width that the network sees.
            threshold: probability below which a pixel is 255 in the mask.

        Raises:
            torch.cuda.OutOfMemoryError: not even one picture fits into the memory.
        """
        limit = self.largest_batch or len(pictures)
        if len(pictures) > limit:
            halves = (pictures[:limit], pictures[limit:])
            return [answer for half in halves for answer in self(half, size, threshold)]
        try:
            return self._run(pictures, size, threshold)
        except torch.cuda.OutOfMemoryError:
            self._plans.clear()
            torch.cuda.empty_cache()
            if len(pictures) == 1:
                raise
            self.largest_batch = len(pictures) // 2
        return self(pictures, size, threshold)

    def _run(self, pictures: Sequence[np.ndarray], size: Size, threshold: float) -> list[Answer]:
        if threshold != self._threshold_value:
            self._threshold.fill_(threshold)
            self._threshold_value = threshold
        height, width = pictures[0].shape[:2]
        key = (len(pictures), (height, width), size)
        plan = self._plans.pop(key, None)
        if plan is None:
            plan = _Plan(len(pictures), (height, width), size, self._device)
        self._plans[key] = plan  # the last one used is the last one to go
        while len(self._plans) > _SHAPES:
            self._plans.popitem(last=False)
        if plan.ran and plan.graph is None:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            plan.record(self._infer, self._threshold, self._pool)
        answers = plan(pictures, self._infer, self._threshold)
        self.state = "eager" if plan.graph is None else "recorded"
        return answers


class _Plan:
    """Buffers, and sooner or later the graph, of one shape."""

    def __init__(self, batch: int, picture: Size, size: Size, device: torch.device) -> None:
        self._pinned = torch.empty(batch, *picture, 3, dtype=torch.uint8, pin_memory=True)
        self._bytes = torch.empty(batch, *picture, 3, dtype=torch.uint8, device=device)
        self._out = torch.empty(3, batch, *picture, dtype=torch.uint8, device=device)
        self._finite = torch.empty((), dtype=torch.bool, device=device)
        self._pinned_out = torch.empty(3, batch, *picture, dtype=torch.uint8, pin_memory=True)
        self._pinned_finite = torch.empty((), dtype=torch.bool, pin_memory=True)
        self._picture = picture
        self._resize: tuple[Tensor, Tensor] | None = None
        if picture != size:
            rows, columns = (shrinking(old, new, device) for old, new in zip(picture, size, strict=True))
            self._resize = rows, columns.t().contiguous()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.ran = False

    def __call__(
        self, pictures: Sequence[np.ndarray], infer: Callable[[Tensor], Tensor], threshold: Tensor
    ) -> list[Answer]:
        into = self._pinned.numpy()
        for index, picture in enumerate(pictures):
            into[index] = picture
        with torch.inference_mode():
            if self.graph is None:
                self._work(infer, threshold)
            else:
                self.graph.replay()
        torch.cuda.current_stream(self._bytes.device).synchronize()
        self.ran = True
        labels, confidence, mask = self._pinned_out.numpy().copy()  # the buffer is written again by the next call
        finite = bool(self._pinned_finite)
        return [Answer(labels[i], confidence[i], mask[i], finite) for i in range(len(pictures))]

    def record(self, infer: Callable[[Tensor], Tensor], threshold: Tensor, pool: Any) -> None:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._bytes.device)
        with torch.inference_mode(), torch.cuda.graph(graph, pool=pool):
            self._work(infer, threshold)
        self.graph = graph

    def _work(self, infer: Callable[[Tensor], Tensor], threshold: Tensor) -> None:
        self._bytes.copy_(self._pinned, non_blocking=True)
        pictures = self._bytes.permute(0, 3, 1, 2).float()
        if self._resize is not None:
            rows, columns = self._resize
            pictures = (rows @ (pictures @ columns)).round().clamp(0, 255)  # bytes, as OpenCV would give
        probability = infer(pictures)
        self._finite.copy_(torch.isfinite(probability.sum()))
        best_class(probability.contiguous(), threshold, self._picture, self._out)
        self._pinned_out.copy_(self._out, non_blocking=True)
        self._pinned_finite.copy_(self._finite, non_blocking=True)
