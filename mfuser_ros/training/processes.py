"""Several processes that train one network together, each on its share of every batch (started by torchrun)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn import functional as collective

from mfuser_ros.errors import ConfigurationError

_PATIENCE = timedelta(hours=2)  # the others wait while the first one evaluates


def count() -> int:
    """How many processes train together; 1 without torchrun."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process from 0; the first one writes files and evaluates."""
    return distributed.get_rank() if count() > 1 else 0


def local_device(device: torch.device) -> torch.device:
    """The device of this process: torchrun gives each process of a machine a GPU of its own.

    Raises:
        ConfigurationError: the machine has fewer GPUs than processes.
    """
    local = os.environ.get("LOCAL_RANK")
    if local is None or device.type != "cuda":
        return device
    if int(local) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"process {local} of this machine has no GPU, there are {torch.cuda.device_count()}: "
            "start torchrun with as many processes as there are GPUs"
        )
    return torch.device("cuda", int(local))


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the other processes that torchrun started; nothing to do without it.

    Args:
        device: of this process; GPUs talk over NCCL, CPUs over gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@torch.no_grad()
def summed(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without gradients."""
    if count() == 1:
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


def of_first(value: float, device: torch.device) -> float:
    """The first process's number in all of them, for decisions that clocks make."""
    if count() == 1:
        return value
    box = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.broadcast(box, 0)
    return float(box.item())


def own_rows(samples: list[int], device: torch.device) -> Tensor | None:
    """Which rows of a batch are this process's: an equal run of each source's samples; None if all are.

    Args:
        samples: of each source in the batch of all processes, in the order of the batch.
        device: of the result.

    Returns:
        (b,) int64 row numbers, ascending.

    Raises:
        ConfigurationError: the processes do not divide a source's samples.
    """
    world, first = count(), 0
    rows: list[int] = []
    if world == 1:
        return None
    for number in samples:
        if number % world:
            raise ConfigurationError(
                f"{number} samples of a source cannot be shared equally by {world} processes: start a number of "
                "processes that divides the samples of every source, or change `samples` in the recipe"
            )
        share = number // world
        rows += range(first + rank() * share, first + (rank() + 1) * share)
        first += number
    return torch.tensor(rows, device=device)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics are those of the batch of all processes, on CPUs too (unlike torch's)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of this process -> the same, normalised by the mean and deviation over all processes."""
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            values = x.float()
            pixels = values.numel() / values.shape[1] * count()
            mean = _shared_sum(values.sum((0, 2, 3))) / pixels
            centred = values - mean[:, None, None]
            variance = _shared_sum((centred**2).sum((0, 2, 3))) / pixels
            self._follow(mean.detach(), variance.detach() * pixels / (pixels - 1))
            gain = self.weight * torch.rsqrt(variance + self.eps)
            return (centred * gain[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


def share_batch_norms(model: nn.Module) -> None:
    """Let the BatchNorms of a model see the batch of all processes; nothing to do for one process."""
    if count() == 1:
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d  # same parameters, same state


def _shared_sum(value: Tensor) -> Tensor:
    total: Tensor = collective.all_reduce(value)  # type: ignore[no-untyped-call]  # with gradients
    return total
