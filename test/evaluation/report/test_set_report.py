"""The report of a set, as text and in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mfuser_ros.datasets.config import load_config
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.evaluation.dataset import evaluate
from mfuser_ros.evaluation.record import Record
from mfuser_ros.evaluation.report.page import Report, render, write_report
from mfuser_ros.evaluation.report.set_report import set_report
from mfuser_ros.evaluation.summary import summarise

CAMVID = load_config(Path(__file__).parents[3] / "config" / "datasets" / "camvid.yaml")
SINGLE = {"protocol": "single", "size": [480, 640], "threshold": 0.0}


def _half_road(pictures: list[np.ndarray], size: tuple[int, int]) -> torch.Tensor:
    """Road below, sky above, a strip of building in between."""
    fine = torch.full((len(pictures), 19, *size), 0.01)
    height = size[0]
    fine[:, 10, : height // 2] = 0.82
    fine[:, 0, height // 2 :] = 0.82
    fine[:, 2, height // 2 - 8 : height // 2 + 8] = 1.5
    return fine / fine.sum(1, keepdim=True)


@pytest.fixture(scope="module")
def report() -> Report:
    samples = []
    for number in range(12):
        label = np.zeros((90, 120), np.uint8)  # sky
        label[40 + number :] = 3  # road
        label[80:, 60:] = 255
        picture = np.full((90, 120, 3), (90, 140, 200), np.uint8)
        picture[40 + number :] = 70
        samples.append(Sample(picture, label, f"0001TP/{number:03}"))
    record = Record(CAMVID)
    result = evaluate(samples, CAMVID, _half_road, watch=record.add)
    model = {"name": "<small>", "sha256": "0"}
    return set_report(
        summarise(result, source="camvid/dusk", model=model, settings=SINGLE, record=record), result, record
    )


def test_report_holds_scores_faults_and_where_the_data_are_from(report: Report):
    text = render(report)
    assert "12 pictures, one pass over each whole picture at 640x480." in text
    for piece in ("mean IoU", "boundary IoU", "road precision", "calibration error", "Brostow", "sky seen as building"):
        assert piece in text
    assert "camvid/dusk: &lt;small&gt;" in text
    assert text.count("data:image/jpeg") == 8 + 2  # worst and best


def test_pictures_are_ordered_and_carry_anchors(report: Report):
    worst = next(section for section in report.sections if section.heading == "Worst pictures")
    anchors = [part.anchor for part in worst.parts if hasattr(part, "anchor")]
    assert all(anchor.startswith("picture-0001TP-0") for anchor in anchors)
    assert len(set(anchors)) == 8
    scores = [float(part.caption.split(" %")[0].split()[-1]) for part in worst.parts if hasattr(part, "caption")]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


def test_report_in_a_browser(report: Report, browse: Callable[[Path], object], tmp_path: Path):
    browsed = browse(write_report(report, tmp_path))
    for name in ("classes", "confusion", "confidence", "pictures"):
        assert "main-svg" in browsed.dom.split(f'id="chart-{name}"')[1][:20_000]
    shot = cv2.imread(str(browsed.screenshot))
    magenta_road = np.array([128, 64, 128])[::-1]
    assert (np.abs(shot.astype(int) - magenta_road).max(-1) < 12).sum() > 5000  # the panels of label and prediction
