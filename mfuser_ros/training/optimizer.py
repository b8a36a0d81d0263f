"""AdamW over what a recipe trains, and its rate over the steps."""

from __future__ import annotations

import re

import torch
from torch import nn

from mfuser_ros.network.mobilenet import MobileNetV2Tower
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.text import TextEncoder
from mfuser_ros.training.config import OptimizerConfig

# matrices without decay
_VECTORS = ("A_log", "query_embed", "level_embed", "level_encoding", "text_pos_embed", "tokens")


def build_optimizer(
    model: MFuser, config: OptimizerConfig, device: torch.device
) -> tuple[list[float], torch.optim.AdamW]:
    """AdamW with a group for each rate and decay; what is not trained is frozen in the model.

    Frozen are towers whose rate is 0, the biases of MobileNetV2 towers (they are folded BatchNorms), and a text tower
    but for its learned contexts.

    Returns:
        The peak rate of each group, and the optimizer.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    frozen = _frozen(model, config)
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        in_tower = name.startswith(("vfm.", "vlm."))
        decay = config.tower_weight_decay if in_tower else config.weight_decay
        rate = config.tower_rate if in_tower else config.rate
        groups.setdefault((rate, decay if _decays(name, parameter, config) else 0.0), []).append(parameter)
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


def _frozen(model: MFuser, config: OptimizerConfig) -> set[str]:
    names = set()
    for part, tower in zip(model.architecture.tower_names, model.towers, strict=True):
        folded = isinstance(tower, MobileNetV2Tower)
        for name, parameter in tower.named_parameters():
            if config.tower_rate == 0 or (folded and parameter.ndim <= 1):
                names.add(f"{part}.{name}")
    if isinstance(model.text, TextEncoder):
        names |= {f"text.{name}" for name, _ in model.text.named_parameters() if name != "contexts"}
    return names


def _decays(name: str, parameter: nn.Parameter, config: OptimizerConfig) -> bool:
    if config.without_decay is not None:
        return not any(re.search(pattern, name) for pattern in config.without_decay)
    return parameter.ndim > 1 and not any(part in _VECTORS for part in name.split("."))


def rate_share(step: int, progress: float, config: OptimizerConfig) -> float:
    """Share of the peak rate: linear warm-up, polynomial to the floor at a progress of 1.

    Args:
        step: from 0.
        progress: 0..1, of steps or of time, whichever is further.
        config: length and start of the warm-up, power and floor of the polynomial.

    Source: spec of MFuser section 6.3 (mmcv's poly policy with linear warm-up).
    """
    polynomial = (1 - config.floor) * max(0.0, 1 - progress) ** config.power + config.floor
    return float(_warm_up(step, config) * polynomial)


def _warm_up(step: int, config: OptimizerConfig) -> float:
    if step >= config.warm_up_steps:
        return 1.0
    if config.warm_up_from is None:
        return (step + 1) / config.warm_up_steps
    return 1 - (1 - step / config.warm_up_steps) * (1 - config.warm_up_from)
