"""Scores by hand and against torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics

from mfuser_ros.evaluation.metrics import Calibration, Confusion


def test_scores_by_hand() -> None:
    confusion = Confusion.empty(3)
    confusion.add(np.array([0, 0, 0, 1, 255], np.uint8), np.array([0, 0, 1, 1, 0], np.uint8))

    scores = confusion.scores()

    np.testing.assert_array_equal(confusion.counts, [[2, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(scores.iou, [2 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(scores.precision, [1, 1 / 2, np.nan])
    np.testing.assert_allclose(scores.recall, [2 / 3, 1, np.nan])
    np.testing.assert_allclose(scores.share, [3 / 4, 1 / 4, 0])
    assert scores.miou == pytest.approx((2 / 3 + 1 / 2) / 2)  # the class that never occurs is left out
    assert scores.pixel_accuracy == pytest.approx(3 / 4)


def test_unknown_prediction_counts_as_wrong() -> None:
    confusion = Confusion.empty(2)
    confusion.add(np.array([0, 0, 1], np.uint8), np.array([0, 255, 1], np.uint8))
    scores = confusion.scores()
    assert scores.iou.tolist() == [0.5, 1.0]
    assert scores.precision.tolist() == [1.0, 1.0]
    assert scores.pixel_accuracy == pytest.approx(2 / 3)


def test_class_that_is_only_predicted_has_an_iou_of_zero() -> None:
    confusion = Confusion.empty(2)
    confusion.add(np.zeros(4, np.uint8), np.array([0, 0, 0, 1], np.uint8))
    assert confusion.scores().iou.tolist() == [0.75, 0.0]
    assert np.isnan(confusion.scores().recall[1])


def test_nothing_labelled_gives_no_score() -> None:
    scores = Confusion.empty(2).scores()
    assert scores.miou is None
    assert scores.pixel_accuracy is None


def test_id_without_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="ids up to 5 for 2 classes"):
        Confusion.empty(2).add(np.array([5], np.uint8), np.array([0], np.uint8))


def test_scores_equal_torchmetrics_and_matrices_add_up() -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 7, (3, 20, 30)).astype(np.uint8)
    prediction = np.where(rng.random(label.shape) < 0.6, label, rng.integers(0, 7, label.shape)).astype(np.uint8)
    label[rng.random(label.shape) < 0.1] = 255
    parts, whole = Confusion.empty(7), Confusion.empty(7)
    for one, other in zip(label, prediction, strict=True):
        parts.add(one, other)
    whole.add(label, prediction)

    np.testing.assert_array_equal(parts.counts, whole.counts)
    target, guess = torch.from_numpy(label).long(), torch.from_numpy(prediction).long()
    witness = torchmetrics.JaccardIndex(task="multiclass", num_classes=7, ignore_index=255, average="none")
    np.testing.assert_allclose(whole.scores().iou, witness(guess, target).numpy(), rtol=1e-5)
    for name, ours in (("Precision", whole.scores().precision), ("Recall", whole.scores().recall)):
        metric = getattr(torchmetrics, name)(task="multiclass", num_classes=7, ignore_index=255, average="none")
        np.testing.assert_allclose(ours, metric(guess, target).numpy(), rtol=1e-5)


def test_calibration_error_by_hand_and_against_torchmetrics() -> None:
    calibration = Calibration.empty()
    calibration.add(np.array([0.9, 0.9]), np.array([True, False]))
    calibration.add(np.array([0.5, 0.5]), np.array([True, False]))
    assert calibration.ece == pytest.approx((2 * 0.4 + 2 * 0.0) / 4)

    rng = np.random.default_rng(2)
    probability = rng.dirichlet(np.ones(4) * 0.5, 500)
    label = rng.integers(0, 4, 500)
    ours = Calibration.empty()
    ours.add(probability.max(1), probability.argmax(1) == label)
    witness = torchmetrics.CalibrationError(task="multiclass", num_classes=4, n_bins=15, norm="l1")
    expected = witness(torch.from_numpy(probability), torch.from_numpy(label)).item()
    assert ours.ece == pytest.approx(expected, abs=1e-4)
    assert Calibration.empty().ece is None
