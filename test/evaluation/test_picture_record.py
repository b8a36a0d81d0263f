"""What is kept of each picture of a set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mfuser_ros.datasets.config import load_config
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.evaluation.dataset import Evaluation, evaluate
from mfuser_ros.evaluation.metrics import Calibration, Confusion
from mfuser_ros.evaluation.record import BEST, KEPT_WIDTH, WORST, Record
from mfuser_ros.evaluation.summary import summarise

CAMVID = load_config(Path(__file__).parents[2] / "config" / "datasets" / "camvid.yaml")
ROAD, SKY, CAR = 3, 0, 8  # CamVid ids


def _all_road(pictures: list[np.ndarray], size: tuple[int, int]) -> torch.Tensor:
    """Road everywhere, at 0.8."""
    fine = torch.zeros(19)
    fine[0], fine[10] = 0.8, 0.2
    return fine.view(1, 19, 1, 1).expand(len(pictures), 19, *size)


def _sample(stem: str, road_columns: int, *, width: int = 20) -> Sample:
    """A label with road on the left and sky on the right."""
    label = np.full((10, width), SKY, np.uint8)
    label[:, :road_columns] = ROAD
    return Sample(np.zeros((10, width, 3), np.uint8), label, stem)


def _record(samples: list[Sample]) -> tuple[Evaluation, Record]:
    record = Record(CAMVID)
    return evaluate(samples, CAMVID, _all_road, batch=1, watch=record.add), record


def test_row_of_a_picture_by_hand():
    _, record = _record([_sample("a", 15)])
    (row,) = record.rows
    assert (row["index"], row["stem"], row["height"], row["width"]) == (0, "a", 10, 20)
    assert row["road_iou"] == row["road_precision"] == row["pixel_accuracy"] == pytest.approx(0.75)
    assert row["road_recall"] == 1.0
    assert row["iou_sky"] == 0.0
    assert row["iou_car"] is None
    assert row["miou"] == pytest.approx(0.375)
    assert row["confidence"] == pytest.approx(0.8)
    assert row["ece"] == pytest.approx(0.05)  # 0.8 sure, 0.75 right
    assert row["unknown_share"] == 0.0
    assert row["latency_ms"] > 0


def test_rows_add_up_to_the_set(tmp_path: Path):
    evaluation, record = _record([_sample("a", 15), _sample("b", 4), _sample("c", 20)])
    table = pq.read_table(record.write_frames(tmp_path / "new"))
    assert table.num_rows == 3
    counts = np.sum([np.reshape(row, (11, 12)) for row in table["confusion"].to_pylist()], axis=0)
    np.testing.assert_array_equal(counts, evaluation.confusion.counts)
    calibration = np.sum([np.reshape(row, (3, -1)) for row in table["calibration"].to_pylist()], axis=0)
    np.testing.assert_allclose(calibration[0], evaluation.calibration.pixels)
    boundary = np.sum([np.reshape(row, (2, 11)) for row in table["boundary"].to_pylist()], axis=0)
    np.testing.assert_array_equal(boundary, record.boundary.counts)
    assert table["iou_car"].to_pylist() == [None, None, None]
    assert table["stem"].to_pylist() == ["a", "b", "c"]


def test_worst_and_best_pictures_are_kept_in_order():
    # few road columns: a low IoU of road; sky is never found. 20 columns: no sky, mean IoU 1
    columns = [20, 3, 9, 1, 12, 5, 16, 7, 11, 2, 14, 19, 18]
    _, record = _record([_sample(f"p{count}", count) for count in columns])
    assert [kept.stem for kept in record.worst] == [f"p{count}" for count in sorted(columns)[:WORST]]
    assert [kept.stem for kept in record.best] == ["p20", "p19"]
    assert BEST == 2
    assert record.worst[0].miou == pytest.approx(0.025)
    assert record.worst[0].faults == (("sky", "road", pytest.approx(0.95)),)
    assert record.best[0].faults == ()


def test_few_pictures_are_shown_once():
    _, record = _record([_sample("a", 3), _sample("b", 9)])
    assert [kept.stem for kept in record.worst] == ["a", "b"]
    assert record.best == []


def test_large_picture_is_kept_small_and_unlabelled_one_is_not_ranked():
    large = _sample("large", 1000, width=2000)
    blank = Sample(large.picture, np.full_like(large.label, 255), "blank")
    _, record = _record([large, blank])
    (kept,) = record.worst
    assert kept.picture.shape == (5, KEPT_WIDTH, 3)
    assert kept.label.shape == kept.prediction.shape == (5, KEPT_WIDTH)
    assert record.rows[1]["miou"] is None


def test_summary_takes_boundary_and_latency_from_the_record():
    evaluation, record = _record([_sample("a", 15)])
    summary = summarise(evaluation, source="x", model={}, settings={}, record=record)
    # 10 x 20: d = 1; road's ring 2 (10 + 15) - 4 = 46, the whole's 56, in common 46 less the right column's 8
    assert record.boundary.counts[:, ROAD].tolist() == [38, 64]
    assert summary["boundary_iou"] == pytest.approx(38 / 64 / 2)  # sky: 0
    assert summary["latency_ms"]["p50"] == record.rows[0]["latency_ms"]
    assert Record(CAMVID).latency_ms() is None


def test_batches_share_their_time():
    record = Record(CAMVID)
    evaluate([_sample("a", 3), _sample("b", 9)], CAMVID, _all_road, batch=2, watch=record.add)
    assert record.rows[0]["latency_ms"] == record.rows[1]["latency_ms"]


def test_calibrations_of_parts_add_up():
    whole, parts = Calibration.empty(), Calibration.empty()
    for confidence in (0.25, 0.75):
        part = Calibration.empty()
        part.add(np.array([confidence]), np.array([True]))
        parts.merge(part)
        whole.add(np.array([confidence]), np.array([True]))
    assert parts.ece == whole.ece == pytest.approx(0.5)


def test_watcher_sees_what_was_counted():
    seen: list[Confusion] = []
    samples = [_sample("a", 3), _sample("b", 9)]
    result = evaluate(samples, CAMVID, _all_road, watch=lambda judged: seen.append(judged.confusion))
    np.testing.assert_array_equal(sum(confusion.counts for confusion in seen), result.confusion.counts)
