"""Temperature and threshold are found again where they are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mfuser_ros.checkpoints import load_model
from mfuser_ros.checkpoints.store import ModelCard, save_model
from mfuser_ros.datasets.config import load_config
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.errors import DatasetError
from mfuser_ros.evaluation.calibration import Fit, choose_threshold, draw, fit_sets, fit_temperature, write_fit
from mfuser_ros.network.config import SMALL
from mfuser_ros.network.model import MFuser
from mfuser_ros.vocabulary import load

CONFIGS = Path(__file__).parents[2] / "config" / "datasets"
CITYSCAPES = load_config(CONFIGS / "cityscapes256.yaml")


def _overconfident(temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """20,000 pixels whose labels are drawn from honest probabilities, which are then sharpened."""
    generator = torch.Generator().manual_seed(0)
    honest = torch.softmax(torch.randn(20000, 19, generator=generator) * 2, 1)
    label = torch.multinomial(honest, 1, generator=generator)[:, 0]
    sharp = honest**temperature
    return sharp / sharp.sum(1, keepdim=True), label


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.2])
def test_known_temperature_is_found(temperature: float) -> None:
    probability, label = _overconfident(temperature)
    member = torch.nn.functional.one_hot(label, 19).bool()
    assert fit_temperature(probability, member) == pytest.approx(temperature, rel=0.04)


def test_threshold_loses_the_stated_share_of_right_pixels() -> None:
    right = np.linspace(0, 1, 1001)
    assert choose_threshold(right, 0.05) == pytest.approx(0.05)
    assert choose_threshold(np.array([]), 0.05) == 0


def test_fit_improves_the_likelihood_of_a_set() -> None:
    probability, label = _overconfident(2.0)
    picture = np.zeros((100, 200, 3), np.uint8)
    sample = Sample(picture, label.reshape(100, 200).numpy().astype(np.uint8), "a")
    scene = probability.t().reshape(1, 19, 100, 200)

    fitted = fit_sets([draw([sample], CITYSCAPES, lambda pictures, size: scene)], lost=0.02)

    assert fitted.pixels == 4000
    assert fitted.temperature == pytest.approx(2.0, rel=0.08)
    assert fitted.nll_after < fitted.nll_before
    tempered = scene ** (1 / fitted.temperature)
    best, guess = (tempered / tempered.sum(1, keepdim=True)).max(1)
    right = best.flatten()[guess.flatten() == label]
    assert (right < fitted.threshold).float().mean() == pytest.approx(0.02, abs=0.01)


def test_set_without_labels_is_refused() -> None:
    blank = Sample(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 255, np.uint8), "a")
    with pytest.raises(DatasetError, match="no labelled pixel"):
        draw([blank], CITYSCAPES, lambda pictures, size: torch.ones(1, 19, 4, 4) / 19)


def test_fit_is_written_into_the_models_yaml(tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = load(CONFIGS.parent / "vocabulary.yaml").names
    card = ModelCard(
        name="small", architecture=SMALL, vocabulary=names, threshold=0, temperature=1, licence="none",
        provenance="random",
    )  # fmt: skip
    path = tmp_path / "small.safetensors"
    before = save_model(MFuser(SMALL), card, path)
    weights = path.read_bytes()

    write_fit(path, Fit(1.37, 0.412, 1.0, 0.9, 10))

    _, after = load_model(path)
    assert (after.temperature, after.threshold) == (1.37, 0.412)
    assert after == before.model_copy(update={"temperature": 1.37, "threshold": 0.412})
    assert path.read_bytes() == weights
