"""One training step, and the same as a CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mfuser_ros import vocabulary
from mfuser_ros.errors import DeviceError
from mfuser_ros.network.model import MFuser
from mfuser_ros.training import processes
from mfuser_ros.training.config import TrainConfig
from mfuser_ros.training.disk import DiskSource
from mfuser_ros.training.distortion import Distortion
from mfuser_ros.training.draws import Draws
from mfuser_ros.training.geometry import Geometry
from mfuser_ros.training.objective import Terms, objective
from mfuser_ros.training.optimizer import build_optimizer
from mfuser_ros.training.photometry import Photometry
from mfuser_ros.training.regularisers import Anchor
from mfuser_ros.training.sources import Source, draw_batch

COLUMNS = (*Terms._fields, "gradient_norm", "skipped")


class Step:
    """Draws a batch, runs the network, updates weights and their moving average; never waits for the device.

    Several processes each take their share of the batch. Their losses and gradients are added up, and each makes the
    same update.

    Attributes:
        model: being trained.
        average: moving average of its weights, in eval mode; the model itself where the recipe wants none.
        optimizer: AdamW; its rates are tensors on the device, set by `set_rate`.
        done: steps so far.
        device: of all tensors.
    """

    def __init__(
        self, model: MFuser, sources: Sequence[Source | DiskSource], config: TrainConfig, device: torch.device
    ) -> None:
        """Take over a model that is on `device`, with its initial weights.

        Raises:
            ConfigurationError: the processes do not divide the samples of a source.
        """
        self.model = model.train()
        self.done = 0
        losses = config.losses
        names = vocabulary.load().names if losses.language else None
        self._anchor = Anchor(model, names) if losses.language or losses.vision else None
        self._sources = sources
        self._config = config
        self.device = device
        crop = config.crop
        self._geometry = Geometry(crop.size, crop.scale, crop.aspect, crop.rotation_deg)
        self._photometry = (Distortion() if config.augmentation == "published" else Photometry()).to(device)
        self._draws = Draws([source.samples for source in sources], device)
        processes.share_batch_norms(model)
        self._peaks, self.optimizer = build_optimizer(model, config.optimizer, device)
        self._trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.average, self._follow = _average(model, config.optimizer.ema)
        self._network: nn.Module = model
        if processes.count() > 1:  # rivals have weights that no loss reaches
            self._network = DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)
        self._sums = torch.zeros(len(COLUMNS), device=device)
        self._steps = 0
        self._skip = torch.zeros((), device=device)
        self.optimizer.found_inf = self._skip  # type: ignore[attr-defined]  # fused AdamW leaves the weights if not 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def set_rate(self, share: float) -> None:
        """Set every group's rate to this share of its peak."""
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"].fill_(peak * share)

    def __call__(self) -> None:
        """Run one step.

        Raises:
            DatasetError: a picture on disk cannot be read.
        """
        for source in self._sources:
            source.fetch(self.done)
        if self._graph is None:
            self.record()
        else:
            self._graph.replay()
        self.count()

    def count(self) -> None:
        """Note that a step was run, here or in a graph that holds it."""
        self._steps += 1
        self.done += 1

    def capture(self, warm_up: int = 4) -> None:
        """Record the step as a CUDA graph, after `warm_up` ordinary steps (they train as well).

        Raises:
            DeviceError: something in the step cannot be recorded.
        """
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own lack
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warm_up):
                self()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.record()
        except RuntimeError as error:
            raise DeviceError(f"the step cannot be recorded ({' '.join(str(error).split())}): use --eager") from error
        self._graph = graph

    def read(self) -> dict[str, float]:
        """Means of the losses since the last call, over all processes (waits for the device)."""
        losses = len(Terms._fields)  # what follows them is the same in every process
        sums = torch.cat([processes.summed(self._sums[:losses]), self._sums[losses:]])
        means = (sums / max(self._steps, 1)).tolist()
        self._sums.zero_()
        self._steps = 0
        return dict(zip(COLUMNS, means, strict=True))

    @contextmanager
    def evaluating(self) -> Iterator[MFuser]:
        """The weights that ship, in eval mode."""
        self.average.eval()
        try:
            yield self.average
        finally:
            self.model.train()

    def state(self) -> dict[str, Any]:  # of tensors, numbers and containers of them
        """All that the next step depends on, but for the generators; for `load_state`."""
        return {
            "step": self.done,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sums": self._sums,
            "summed_steps": self._steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, RuntimeError, ValueError: it is none, or one of another network.
        """
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:  # the optimizer put other tensors in their place
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32).to(self.device).clone()
        if "sums" in state:  # a checkpoint of version 1 has none
            self._sums.copy_(state["sums"])
            self._steps = int(state["summed_steps"])
        self.done = int(state["step"])

    def record(self) -> None:
        """The work of one step, to be run or to be recorded in a graph; `count` is told of each run."""
        config = self._config
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            picture, targets = draw_batch(self._sources, self._geometry)
            picture = self._photometry(picture, self._draws)
            if config.channels_last:
                picture = picture.contiguous(memory_format=torch.channels_last)
        low = self.device.type == "cuda" and config.precision == "bf16"
        with self._own_generator(), torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            output = self._network(picture)
            drift = self._anchor(picture, output) if self._anchor else None
        matched = self.model.architecture.matched
        terms = objective(output, targets, config.losses, matched=matched, drift=drift, draws=self._draws)
        # the processes' gradients are averaged, their losses add up
        (terms.total * processes.count()).backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._skip.copy_(~torch.isfinite(norm))
        if config.optimizer.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self._trained, config.optimizer.clip, norm)
        self.optimizer.step()
        self._follow()
        with torch.no_grad():
            row = torch.stack([*(term.detach() for term in terms), norm, self._skip])
            self._sums += row.nan_to_num(0, 0, 0)

    @contextmanager
    def _own_generator(self) -> Iterator[None]:
        """With several processes, dropout draws from a generator that is each process's own, made for this step."""
        if processes.count() == 1:
            yield
            return
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(hash((self._config.seed, self.done, processes.rank())) % 2**63)
            yield


def _average(model: MFuser, decay: float | None) -> tuple[MFuser, Any]:
    """The network whose weights follow those of `model`, and the function that makes them follow once."""
    if decay is None:
        return model, lambda: None
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    average = copy.deepcopy(model, {id(parameter): parameter for parameter in frozen})  # towers are there once
    average = average.eval().requires_grad_(False)
    theirs = dict(average.named_parameters())
    pairs = [(theirs[name], ours) for name, ours in model.named_parameters() if ours.requires_grad]
    averaged, trained = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    statistics = [  # of BatchNorm, which are averages already
        (theirs, ours)
        for (name, ours), theirs in zip(model.named_buffers(), average.buffers(), strict=True)
        if name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
    ]

    def follow() -> None:
        update(averaged, trained, 0)
        for theirs, ours in statistics:
            theirs.copy_(ours)

    return average, follow
