"""Calibration error, precision of the road and the cost of "unknown", worked by hand on a handful of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mfuser_ros.datasets.config import load_config
from mfuser_ros.errors import DatasetError
from mfuser_ros.evaluation.calibration import Pixels, fit_sets
from mfuser_ros.evaluation.calibration_curves import judge, precision_recall

CONFIGS = Path(__file__).parents[2] / "config" / "datasets"


def _pixels(rows: list[dict[int, float]], labels: list[int], set_name: str = "cityscapes256") -> Pixels:
    """Pixels whose probabilities are given for some classes; the rest is spread over those that are not."""
    config = load_config(CONFIGS / f"{set_name}.yaml")
    probability = torch.zeros(len(rows), 19)
    for row, given in zip(probability, rows, strict=True):
        others = [index for index in range(19) if index not in given]
        row[others] = (1 - sum(given.values())) / len(others)
        for index, value in given.items():
            row[index] = value
    members = torch.from_numpy(config.membership()[: len(config.labels)])
    return Pixels(probability, torch.tensor(labels), members, 1)


def _random_pixels(temperature: float, seed: int, count: int = 8000) -> Pixels:
    """Labels are drawn from honest probabilities, which are then sharpened."""
    generator = torch.Generator().manual_seed(seed)
    honest = torch.softmax(torch.randn(count, 19, generator=generator) * 2, 1)
    label = torch.multinomial(honest, 1, generator=generator)[:, 0]
    sharp = honest**temperature
    return Pixels(sharp / sharp.sum(1, keepdim=True), label, torch.eye(19, dtype=torch.bool), 1)


def test_precision_at_a_recall_worked_by_hand():
    """Five road pixels with 0.9, 0.8, 0.7, 0.6, 0.2; wrong ones with 0.75 and 0.3."""
    score = np.array([0.9, 0.75, 0.8, 0.7, 0.3, 0.6, 0.2])
    road = np.array([True, False, True, True, False, True, True])
    recall, precision, least = precision_recall(score, road)
    np.testing.assert_allclose(recall, [1 / 5, 2 / 5, 2 / 5, 3 / 5, 4 / 5, 4 / 5, 1])
    np.testing.assert_allclose(precision, [1, 1, 2 / 3, 3 / 4, 4 / 5, 4 / 6, 5 / 7])
    np.testing.assert_allclose(least, [0.9, 0.8, 0.75, 0.7, 0.6, 0.3, 0.2])


def test_pixels_of_one_probability_are_taken_all_at_once():
    recall, precision, least = precision_recall(np.array([0.5, 0.5, 0.5, 0.1]), np.array([True, False, True, True]))
    np.testing.assert_allclose(recall, [2 / 3, 1])
    np.testing.assert_allclose(precision, [2 / 3, 3 / 4])
    np.testing.assert_allclose(least, [0.5, 0.1])


def test_curve_is_that_of_torchmetrics():
    from torchmetrics.functional.classification import binary_precision_recall_curve

    generator = np.random.default_rng(0)
    score = generator.random(500).round(2)
    positive = generator.random(500) < score
    recall, precision, _ = precision_recall(score, positive)
    theirs, their_recall, _ = binary_precision_recall_curve(torch.from_numpy(score), torch.from_numpy(positive).long())
    np.testing.assert_allclose(precision[::-1], theirs[:-1], atol=1e-6)  # the last point of theirs is made up
    np.testing.assert_allclose(recall[::-1], their_recall[:-1], atol=1e-6)


def test_set_without_road_is_refused():
    with pytest.raises(DatasetError, match="no pixel of the set is road"):
        judge(_pixels([{2: 0.9}], [2]), temperature=1, threshold=0)


def test_threshold_takes_wrong_road_away_and_what_it_costs_is_counted():
    pixels = _pixels([{0: 0.9}, {0: 0.8}, {0: 0.4}, {0: 0.3}, {1: 0.9}, {1: 0.6}], [0, 0, 0, 1, 1, 0])
    report = judge(pixels, temperature=1, threshold=0.5)
    # said to be road: the first four, three of them rightly; one road pixel is taken for sidewalk
    assert report["road"]["without_threshold"] == {"precision": 3 / 4, "recall": 3 / 4}
    assert report["road"]["with_threshold"] == {"precision": 1.0, "recall": 2 / 4}
    assert report["unknown"] == pytest.approx(2 / 6)
    assert report["right_lost"] == pytest.approx(1 / 4)  # right: 0.9, 0.8, 0.4 and the sidewalk
    assert report["wrong_caught"] == pytest.approx(1 / 2)
    # the fourth road pixel has (1 - 0.6) / 18 of road: all but the sidewalk are taken by then
    assert report["road"]["at_recall"][1]["precision"] == pytest.approx(4 / 5, abs=1 / 30)


def test_probabilities_of_a_coarse_label_add_up():
    """Truck and bus with 0.3 each are a car of CamVid with 0.6, more than the road's 0.35."""
    pixels = _pixels([{14: 0.3, 15: 0.3, 0: 0.35}, {0: 0.9}], [8, 3], "camvid")
    report = judge(pixels, temperature=1, threshold=0)
    assert report["accuracy"] == 1
    assert report["road"]["without_threshold"] == {"precision": 1.0, "recall": 1.0}


def test_error_is_that_of_torchmetrics_and_the_right_temperature_brings_it_down():
    from torchmetrics.functional.classification import multiclass_calibration_error

    pixels = _random_pixels(2.0, seed=0)
    report = judge(pixels, temperature=2.0, threshold=0)
    theirs = multiclass_calibration_error(pixels.probability, pixels.label, num_classes=19, n_bins=15, norm="l1")
    assert report["ece_before"] == pytest.approx(float(theirs), abs=1e-4)
    assert report["ece"] < 0.02 < report["ece_before"]
    assert report["nll"] < report["nll_before"]


def test_reliability_bins_hold_every_pixel():
    bins = judge(_random_pixels(1.0, seed=1), temperature=1, threshold=0)["reliability"]
    assert sum(bins["share"]) == pytest.approx(1)
    for share, confidence, accuracy in zip(bins["share"], bins["confidence"], bins["accuracy"], strict=True):
        assert (confidence is None) == (accuracy is None) == (share == 0)


def test_sets_count_alike_whatever_their_sizes():
    """A large set that asks for 1 and a small one that asks for 2: neither has its way."""
    large, small = _random_pixels(1.0, seed=2, count=16000), _random_pixels(2.0, seed=3, count=2000)
    both = fit_sets([large, small])
    assert both.temperature == pytest.approx(fit_sets([small, large, small, large]).temperature, rel=0.01)
    assert fit_sets([large]).temperature < both.temperature < fit_sets([small]).temperature
    assert both.temperature > 1.2  # by pixels alone the large set would win
    assert both.pixels == 18000


def test_threshold_loses_no_more_than_its_share_in_any_set():
    sets = [_random_pixels(1.0, seed=4), _random_pixels(1.6, seed=5)]
    fitted = fit_sets(sets, lost=0.05)
    lost = [judge(pixels, temperature=fitted.temperature, threshold=fitted.threshold)["right_lost"] for pixels in sets]
    assert max(lost) <= 0.05
    assert max(lost) == pytest.approx(0.05, abs=0.005)
