"""One training step, and the same as a CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mfuser_ros.errors import DeviceError
from mfuser_ros.network.model import MFuser
from mfuser_ros.training.config import OptimizerConfig, TrainConfig
from mfuser_ros.training.geometry import Geometry
from mfuser_ros.training.objective import Terms, objective
from mfuser_ros.training.photometry import Photometry
from mfuser_ros.training.regularisers import Anchor
from mfuser_ros.training.sources import Source, draw_batch

# matrices without decay
_VECTORS = ("A_log", "query_embed", "level_embed", "level_encoding", "text_pos_embed", "tokens")
COLUMNS = (*Terms._fields, "gradient_norm", "skipped")


class Step:
    """Draws a batch, runs the network, updates weights and their moving average; never waits for the device.

    Attributes:
        model: being trained.
        average: moving average of its weights, in eval mode.
        optimizer: AdamW; its rates are tensors on the device, set by `set_rate`.
    """

    def __init__(self, model: MFuser, sources: Sequence[Source], config: TrainConfig, device: torch.device) -> None:
        """Take over a model that is on `device`, with its initial weights."""
        self.model = model.train()
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        losses = config.losses
        self._anchor = Anchor(model) if losses.language or losses.vision else None
        self._sources = sources
        self._config = config
        self._device = device
        crop = config.crop
        self._geometry = Geometry(crop.size, crop.scale, crop.aspect, crop.rotation_deg)
        self._photometry = Photometry().to(device)
        self._peaks, self.optimizer = build_optimizer(model, config.optimizer, device)
        self._trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        averaged = dict(self.average.named_parameters())
        names = {parameter: name for name, parameter in model.named_parameters()}
        self._averaged = [averaged[names[parameter]] for parameter in self._trained]
        self._average_weights = get_ema_multi_avg_fn(config.optimizer.ema)  # type: ignore[no-untyped-call]
        self._sums = torch.zeros(len(COLUMNS), device=device)
        self._steps = 0
        self._skip = torch.zeros((), device=device)
        self.optimizer.found_inf = self._skip  # type: ignore[attr-defined]  # fused AdamW leaves the weights if not 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def set_rate(self, share: float) -> None:
        """Set every group's rate to this share of its peak."""
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"].fill_(peak * share)

    def relink(self) -> None:
        """Make the rates tensors on the device again, after the optimizer loaded a state."""
        for group in self.optimizer.param_groups:
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32).to(self._device).clone()

    def __call__(self) -> None:
        """Run one step."""
        if self._graph is None:
            self.record()
        else:
            self._graph.replay()
        self.count()

    def count(self) -> None:
        """Note that a step was run, here or in a graph that holds it."""
        self._steps += 1

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
        """Means of the losses since the last call (waits for the device)."""
        means = (self._sums / max(self._steps, 1)).tolist()
        self._sums.zero_()
        self._steps = 0
        return dict(zip(COLUMNS, means, strict=True))

    def record(self) -> None:
        """The work of one step, to be run or to be recorded in a graph; `count` is told of each run."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            picture, targets = draw_batch(self._sources, self._geometry)
            picture = self._photometry(picture)
            if self._config.channels_last:
                picture = picture.contiguous(memory_format=torch.channels_last)
        low = self._device.type == "cuda" and self._config.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=low):
            output = self.model(picture)
            drift = self._anchor(picture, output) if self._anchor else None
        matched = self.model.architecture.matched
        terms = objective(output, targets, self._config.losses, matched=matched, drift=drift)
        terms.total.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._skip.copy_(~torch.isfinite(norm))
        torch.nn.utils.clip_grads_with_norm_(self._trained, self._config.optimizer.clip, norm)
        self.optimizer.step()
        self._average_weights(self._averaged, self._trained, 0)
        with torch.no_grad():
            row = torch.stack([*(term.detach() for term in terms), norm, self._skip])
            self._sums += row.nan_to_num(0, 0, 0)


def build_optimizer(
    model: MFuser, config: OptimizerConfig, device: torch.device
) -> tuple[list[float], torch.optim.AdamW]:
    """AdamW over matrices and vectors of head and towers; the towers' biases (folded BatchNorm) stay as they are.

    Returns:
        The peak rate of each group, and the optimizer.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        in_tower = name.startswith(("vfm.", "vlm."))
        vector = parameter.ndim <= 1 or any(part in _VECTORS for part in name.split("."))
        if in_tower and (parameter.ndim <= 1 or config.tower_rate == 0):
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        decay = config.tower_weight_decay if in_tower else config.weight_decay
        key = (config.tower_rate if in_tower else config.rate, 0.0 if vector else decay)
        groups.setdefault(key, []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters, "lr": torch.tensor(rate, device=device), "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        betas=config.betas,
        fused=True,
        capturable=device.type == "cuda",
    )
    return [rate for rate, _ in groups], optimizer


def rate_share(step: int, progress: float, warm_up: int, power: float) -> float:
    """Share of the peak rate: linear warm-up, polynomial to 0 at a progress of 1.

    Args:
        step: from 0.
        progress: 0..1, of steps or of time, whichever is further.
        warm_up: steps of the warm-up.
        power: of the polynomial.
    """
    return float(min(1.0, (step + 1) / warm_up) * max(0.0, 1 - progress) ** power)
