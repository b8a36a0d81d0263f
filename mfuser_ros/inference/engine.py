"""The network on a CUDA device: one recorded graph per shape, from bytes of pictures to bytes of masks."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.network import fused
from mfuser_ros.network.fused.blocks import fuse_blocks
from mfuser_ros.network.fused.decoders import fuse_decoders
from mfuser_ros.network.fused.float8 import take_float8
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.resizing import shrinking
from mfuser_ros.vocabulary import UNKNOWN

Size = tuple[int, int]  # height, width
Infer = Callable[[Tensor], Tensor]
State = Literal["plain", "eager", "recorded"]

_SHAPES = 8  # graphs that are kept; each holds its buffers
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """Of one picture, uint8 (H, W) each."""

    labels: np.ndarray
    confidence: np.ndarray
    mask: np.ndarray
    finite: bool  # whether the scores were numbers


def speed_up(model: MFuser, device: torch.device, *, float8: bool = False) -> None:
    """Bring a network into the form that runs fastest on a GPU, in place: fused blocks, towers side by side.

    Args:
        model: on the device, in its final precision.
        device: a GPU; on a CPU there is no second stream.
        float8: whether the towers' linear maps go to e4m3.
    """
    for tower in model.towers:
        fuse_blocks(tower.net)
    fuse_decoders(model)
    if float8:
        take_float8(model)
    if device.type == "cuda":
        model.second_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's own lack


class Engine:
    """Runs a network on pictures of one shape at a time.

    A shape that is new runs in plain torch, while a thread beside runs it once with the Triton kernels, which compiles
    what is not compiled yet (seconds; Triton keeps the result in its cache folder). When that is done, one call runs
    with the kernels (`eager`), the next records a CUDA graph, and all later ones replay it: copy in, resize, network,
    best class, copy out. What cannot be compiled or recorded stays as it was, with one warning in the log.

    Attributes:
        state: of the shape that ran last.
        largest_batch: pictures at once, after a batch that did not fit into the memory; None: none has failed.
    """

    def __init__(self, infer: Infer, device: torch.device, *, shrink: Callable[[], bool] = lambda: False) -> None:
        """Take over a network.

        Args:
            infer: (batch, 3, h, w) RGB 0..255 on the device -> (batch, K, h', w') float32 probabilities; must not
                wait for the device.
            device: a GPU; on a CPU nothing is recorded.
            shrink: called when a single picture does not fit into the memory; makes `infer` need less and returns
                True, or returns False if it cannot.
        """
        self._infer = infer
        self._device = device
        self._shrink = shrink
        self._plans: OrderedDict[tuple[int, Size, Size], _Plan] = OrderedDict()
        self._pool: Any = None  # torch's handle, whose type has no public name
        self._threshold = torch.zeros((), device=device)
        self._threshold_value = 0.0
        self.state: State = "plain"
        self.largest_batch: int | None = None

    def __str__(self) -> str:
        """The state as diagnostics tell it."""
        if self.largest_batch is None:
            return self.state
        return f"{self.state}, {self.largest_batch} pictures at once after a lack of memory"

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
            parts = (pictures[:limit], pictures[limit:])
            return [answer for part in parts for answer in self(part, size, threshold)]
        try:
            with _current(self._device):
                return self._run(pictures, size, threshold)
        except torch.cuda.OutOfMemoryError as error:
            error.__traceback__ = None  # its frames hold the tensors
            self.forget()
            if len(pictures) > 1:
                self.largest_batch = len(pictures) // 2
                _LOGGER.warning("out of memory with %d pictures: %d at once from now on", len(pictures), limit // 2)
            elif not self._shrink():
                raise
        return self(pictures, size, threshold)

    def prepare(self, batch: int, picture: Size, size: Size) -> None:
        """Return when a shape runs as fast as it will: compiled, and recorded if that is possible."""
        blank = [np.full((*picture, 3), 127, np.uint8)] * batch
        self(blank, size, self._threshold_value)
        plan = self._plans.get((batch, picture, size))
        if plan is not None:  # smaller batches stand in for one that does not fit
            plan.wait()
            for _ in range(2):
                self(blank, size, self._threshold_value)

    def forget(self) -> None:
        """Give all graphs and buffers back."""
        for plan in self._plans.values():
            plan.wait()
        self._plans.clear()
        self._pool = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _run(self, pictures: Sequence[np.ndarray], size: Size, threshold: float) -> list[Answer]:
        if threshold != self._threshold_value:
            self._threshold.fill_(threshold)
            self._threshold_value = threshold
        height, width = pictures[0].shape[:2]
        key = (len(pictures), (height, width), size)
        plan = self._plans.pop(key, None)
        if plan is None:
            plan = _Plan(len(pictures), (height, width), size, self._device, self._infer, self._threshold)
        self._plans[key] = plan  # the last one used is the last one to go
        while len(self._plans) > _SHAPES:
            self._plans.popitem(last=False)
        if plan.may_be_recorded and not any(other.is_compiling for other in self._plans.values()):
            self._pool = plan.record(self._pool)
        answers = plan(pictures)
        if plan.state != self.state:
            _LOGGER.info("pictures of %dx%d run %s", width, height, plan.state)
        self.state = plan.state
        return answers


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """Triton and streams go by the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class _Plan:
    """Buffers, and sooner or later the graph, of one shape."""

    def __init__(
        self, batch: int, picture: Size, size: Size, device: torch.device, infer: Infer, threshold: Tensor
    ) -> None:
        on_gpu = device.type == "cuda"
        self._pinned = torch.empty(batch, *picture, 3, dtype=torch.uint8, pin_memory=on_gpu)
        self._bytes = torch.full((batch, *picture, 3), 127, dtype=torch.uint8, device=device)
        self._out = torch.empty(3, batch, *picture, dtype=torch.uint8, device=device)
        self._finite = torch.empty((), dtype=torch.bool, device=device)
        self._pinned_out = torch.empty(3, batch, *picture, dtype=torch.uint8, pin_memory=on_gpu)
        self._pinned_finite = torch.empty((), dtype=torch.bool, pin_memory=on_gpu)
        self._picture = picture
        self._resize: tuple[Tensor, Tensor] | None = None
        if picture != size:
            rows, columns = (shrinking(old, new, device) for old, new in zip(picture, size, strict=True))
            self._resize = rows, columns.t().contiguous()
        self._infer = infer
        self._threshold = threshold
        self._graph: torch.cuda.CUDAGraph | None = None
        self._recordable = on_gpu
        self._compiled = False
        # not a daemon: the end of the process waits, a compiler that is torn down in between crashes
        self._compiler = threading.Thread(target=self._compile, name="mfuser-compiler")
        self.state: State = "plain"

    @property
    def may_be_recorded(self) -> bool:
        """Whether the kernels have run in this plan and there is no graph yet."""
        return self.state == "eager" and self._recordable and self._graph is None

    @property
    def is_compiling(self) -> bool:
        """Whether the thread beside is at work."""
        return self._compiler.is_alive()

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Answer]:
        into = self._pinned.numpy()
        for index, picture in enumerate(pictures):
            into[index] = picture
        if self._graph is not None:
            self._graph.replay()
        else:
            self._run_eagerly()
        if self._bytes.is_cuda:
            torch.cuda.current_stream().synchronize()
        labels, confidence, mask = self._pinned_out.numpy().copy()  # the buffer is written again by the next call
        finite = bool(self._pinned_finite)
        return [Answer(labels[i], confidence[i], mask[i], finite) for i in range(len(pictures))]

    def record(self, pool: Any) -> Any:
        """Record a graph, in a pool of memory shared with other graphs (None: a new one); returns the pool.

        Raises:
            torch.cuda.OutOfMemoryError: a batch does not fit; for a single picture the plan stays eager instead.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            torch.cuda.synchronize(self._bytes.device)
            with (
                torch.inference_mode(),
                torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"),
            ):
                self._work(self._out)
        except RuntimeError as error:
            if isinstance(error, torch.cuda.OutOfMemoryError) and len(self._bytes) > 1:
                raise
            self._recordable = False
            _LOGGER.warning("no CUDA graph, pictures go on kernel by kernel: %s", " ".join(str(error).split()))
            return pool
        self._graph = graph
        self.state = "recorded"
        return graph.pool()

    def wait(self) -> None:
        """Until nothing is compiled for this plan any more."""
        if self._compiler.ident is not None:
            self._compiler.join()

    def _run_eagerly(self) -> None:
        with torch.inference_mode():
            if self._compiled:
                self.state = "eager"
                self._work(self._out)
                return
            with fused.plain():
                self._work(self._out)
        if self._compiler.ident is None:  # after the first picture, which shall not wait for it
            self._compiler.start()

    def _compile(self) -> None:
        """Run once with the kernels, on the stream that all calls use, on a grey picture."""
        try:
            with torch.inference_mode(), _current(self._bytes.device):
                self._segment(self._pictures(torch.full_like(self._bytes, 127)), torch.empty_like(self._out))
                if self._bytes.is_cuda:
                    torch.cuda.current_stream().synchronize()
        except Exception as error:  # whatever a compiler raises, masks go on
            _LOGGER.warning("no Triton kernels, pictures go on in plain torch: %s", " ".join(str(error).split()))
        else:
            self._compiled = True

    def _work(self, out: Tensor) -> None:
        self._bytes.copy_(self._pinned, non_blocking=True)
        self._finite.copy_(self._segment(self._pictures(self._bytes), out))
        self._pinned_out.copy_(out, non_blocking=True)
        self._pinned_finite.copy_(self._finite, non_blocking=True)

    def _pictures(self, content: Tensor) -> Tensor:
        pictures = content.permute(0, 3, 1, 2).float()
        if self._resize is not None:
            rows, columns = self._resize
            pictures = (rows @ (pictures @ columns)).round().clamp(0, 255)  # bytes, as OpenCV would give
        return pictures

    def _segment(self, pictures: Tensor, out: Tensor) -> Tensor:
        probability = self._infer(pictures).contiguous()
        _best_class(probability, self._threshold, self._picture, out)
        return torch.isfinite(probability.sum())


def _best_class(probability: Tensor, threshold: Tensor, size: Size, out: Tensor) -> None:
    """Labels, confidence and mask of enlarged probabilities into `out`; see `fused.sampling.best_class`."""
    if fused.fits(probability):
        from mfuser_ros.network.fused.sampling import best_class  # noqa: PLC0415  # triton is an optional extra

        best_class(probability, threshold, size, out)
        return
    for index, of_one in enumerate(probability):  # one picture at a time: all classes at full size are large
        best, labels = F.interpolate(of_one[None], size, mode="bilinear", align_corners=False)[0].max(0)
        out[0, index] = labels
        out[1, index] = (best * 255 + 0.5).clamp(max=255)
        out[2, index] = torch.where(best < threshold, UNKNOWN, labels)
