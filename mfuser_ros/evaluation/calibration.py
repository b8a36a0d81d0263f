"""Make a model's confidence honest: a temperature, and the probability below which a pixel is unknown.

Both are fitted on source data (cityscapes256/val), never on the sets that measure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from mfuser_ros.checkpoints.store import ModelCard, ModelFile, load_model, save_model
from mfuser_ros.datasets.config import DatasetConfig
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.errors import DatasetError
from mfuser_ros.evaluation.dataset import Probabilities
from mfuser_ros.vocabulary import UNKNOWN

PIXELS = 4000  # of each picture; neighbours say much the same
LOST = 0.02  # share of the right pixels that the threshold may turn into unknown
_STEPS = 1000


@dataclass(frozen=True)
class Fit:
    """What was fitted, and on how much."""

    temperature: float
    threshold: float
    nll_before: float  # mean over the pixels, at a temperature of 1
    nll_after: float
    pixels: int


def fit(
    samples: Iterable[Sample], config: DatasetConfig, probabilities: Probabilities, *, lost: float = LOST, seed: int = 0
) -> Fit:
    """Fit temperature and threshold.

    Args:
        samples: labelled pictures.
        config: their set; with coarse labels the probabilities of the members add up.
        probabilities: of the network at a temperature of 1.
        lost: share of the right pixels that may become unknown.
        seed: of the choice of pixels.

    Raises:
        DatasetError: no pixel carries a label.
    """
    generator = torch.Generator().manual_seed(seed)
    members = torch.from_numpy(config.membership())
    rows, allowed = [], []
    for sample in samples:
        height, width = sample.label.shape
        label = torch.from_numpy(sample.label.astype(np.int64)).flatten()
        places = (label != UNKNOWN).nonzero()[:, 0]
        places = places[torch.randperm(len(places), generator=generator)[:PIXELS]]
        probability = probabilities([sample.picture], (height, width))[0].float().cpu()
        rows.append(probability.flatten(1).t()[places])
        allowed.append(members[label[places]])
    if not rows or not sum(len(row) for row in rows):
        raise DatasetError(f"{config.name}: no labelled pixel to fit on: give a split with labels")
    probability, member = torch.cat(rows), torch.cat(allowed)
    temperature = fit_temperature(probability, member)
    tempered = _tempered(probability, temperature)
    best, right = _best_label(tempered, member, members[: len(config.labels)])
    return Fit(
        temperature=temperature,
        threshold=choose_threshold(best[right].numpy(), lost),
        nll_before=_nll(probability, member, 1.0),
        nll_after=_nll(probability, member, temperature),
        pixels=len(probability),
    )


def fit_temperature(probability: Tensor, member: Tensor) -> float:
    """The temperature with the least mean negative log likelihood, between 0.25 and 4.

    Args:
        probability: (N, K) at a temperature of 1.
        member: (N, K) bool, the classes that the label of a pixel allows.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2; here on scores
    instead of logits: p_c^(1/T) / sum_k p_k^(1/T).
    """
    found = minimize_scalar(
        lambda log_t: _nll(probability, member, float(np.exp(log_t))), bounds=(np.log(0.25), np.log(4)),
        method="bounded", options={"xatol": 1e-3},
    )  # fmt: skip
    return round(float(np.exp(found.x)), 4)


def choose_threshold(right: np.ndarray, lost: float = LOST) -> float:
    """The largest threshold, in thousandths, that turns at most `lost` of the right pixels into unknown.

    Args:
        right: (N,) probability of the best label where it is right.
        lost: share of them that may fall below.
    """
    if not len(right):
        return 0.0
    return int(np.quantile(right, lost) * _STEPS) / _STEPS


def write_fit(path: Path, fitted: Fit) -> ModelFile:
    """Write temperature and threshold into the YAML beside the weights at `path` (which are saved anew, unchanged)."""
    network, description = load_model(path)
    content = description.model_dump(exclude={"sha256"})
    card = ModelCard.model_validate(
        content | {"temperature": fitted.temperature, "threshold": min(fitted.threshold, 0.999)}
    )
    return save_model(network, card, path)


def _tempered(probability: Tensor, temperature: float) -> Tensor:
    raised = probability.clamp_min(1e-30) ** (1 / temperature)
    return raised / raised.sum(1, keepdim=True)


def _nll(probability: Tensor, member: Tensor, temperature: float) -> float:
    own = (_tempered(probability, temperature) * member).sum(1)
    return float(-own.clamp_min(1e-12).log().mean())


def _best_label(probability: Tensor, member: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) probability of the best label and whether it is the pixel's own."""
    best, index = (probability @ members.float().t()).max(1)
    return best, (members[index] == member).all(1)
