"""Evaluation of a set with answers that are known, and its summary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mfuser_ros.datasets.config import load_config
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.errors import DatasetError
from mfuser_ros.evaluation.dataset import evaluate, network_probabilities
from mfuser_ros.evaluation.summary import summarise, write_summary
from mfuser_ros.network.config import SMALL
from mfuser_ros.network.model import MFuser

CONFIGS = Path(__file__).parents[2] / "config" / "datasets"
CAMVID = load_config(CONFIGS / "camvid.yaml")


def _sample(label: np.ndarray, stem: str = "a") -> Sample:
    return Sample(np.zeros((*label.shape, 3), np.uint8), label, stem)


def test_probabilities_of_a_group_add_up_before_the_best_wins() -> None:
    # car, truck and bus have 0.2 each, building 0.35: alone building wins, together the vehicles do
    fine = torch.zeros(19)
    fine[[13, 14, 15]], fine[2], fine[0] = 0.2, 0.35, 0.05
    label = np.array([[8, 8, 1], [8, 255, 8]], np.uint8)  # CamVid: 8 car, 1 building

    result = evaluate(
        [_sample(label)], CAMVID, lambda pictures, size: fine.view(1, 19, 1, 1).expand(len(pictures), 19, *size)
    )

    assert result.confusion.counts[8, 8] == 4
    assert result.confusion.counts[1, 8] == 1
    assert result.confusion.counts.sum() == 5
    assert result.calibration.confidence.sum() == pytest.approx(5 * 0.6, rel=1e-5)


def test_pixels_below_the_threshold_are_unknown() -> None:
    fine = torch.full((19,), 1 / 19)
    label = np.full((4, 4), 3, np.uint8)
    result = evaluate([_sample(label)], CAMVID, lambda p, s: fine.view(1, 19, 1, 1).expand(1, 19, *s), threshold=0.5)
    assert result.confusion.counts[3, -1] == 16
    assert result.calibration.ece is None  # nothing was claimed


def test_pictures_of_one_size_go_through_together() -> None:
    sizes = [(4, 6), (4, 6), (4, 6), (8, 6), (4, 6)]
    samples = [_sample(np.zeros(size, np.uint8)) for size in sizes]
    seen: list[int] = []

    def probabilities(pictures: list[np.ndarray], size: tuple[int, int]) -> torch.Tensor:
        seen.append(len(pictures))
        return torch.ones(len(pictures), 19, *size) / 19

    counted: list[int] = []
    result = evaluate(samples, CAMVID, probabilities, batch=2, progress=counted.append)
    assert seen == [2, 1, 1, 1]
    assert counted == [2, 3, 4, 5]
    assert result.frames == 5


def test_set_for_training_only_is_refused() -> None:
    config = load_config(CONFIGS / "labelme_facade.yaml")
    with pytest.raises(DatasetError, match="for training only"):
        evaluate([], config, lambda pictures, size: torch.empty(0))


def test_network_answers_at_the_labels_size() -> None:
    torch.manual_seed(0)
    model = MFuser(SMALL).eval()
    run = network_probabilities(model, torch.device("cpu"), (64, 96))
    probability = run([np.zeros((30, 40, 3), np.uint8), np.full((30, 40, 3), 255, np.uint8)], (30, 40))
    assert probability.shape == (2, 19, 30, 40)
    torch.testing.assert_close(probability.sum(1), torch.ones(2, 30, 40), atol=1e-4, rtol=0)


def test_summary_has_the_stable_keys_and_null_where_nothing_was_measured(tmp_path: Path) -> None:
    fine = torch.zeros(19)
    fine[0] = 1
    label = np.array([[3, 3, 0, 255]], np.uint8)
    result = evaluate([_sample(label)], CAMVID, lambda p, s: fine.view(1, 19, 1, 1).expand(1, 19, *s))

    path = write_summary(
        summarise(result, source="camvid/dusk", model={"name": "small", "sha256": "0"}, settings={"size": [480, 640]}),
        tmp_path / "new" / "folder",
    )

    summary = json.loads(path.read_text())
    assert list(summary) == [
        "version", "input", "model", "frames", "classes", "miou", "pixel_accuracy", "confusion", "road", "calibration",
        "boundary_iou", "latency_ms", "drivable", "temporal", "limits", "settings", "environment",
    ]  # fmt: skip
    assert summary["version"] == 1
    assert summary["road"] == {"precision": pytest.approx(2 / 3), "recall": 1.0, "iou": pytest.approx(2 / 3)}
    sky, building = summary["classes"][0], summary["classes"][1]
    assert (sky["name"], sky["iou"], sky["precision"], sky["recall"]) == ("sky", 0.0, None, 0.0)
    assert building["iou"] is None
    assert summary["miou"] == pytest.approx((2 / 3 + 0) / 2)
    assert summary["latency_ms"] == {"p50": None, "p95": None, "p99": None}
    assert summary["drivable"] is None
