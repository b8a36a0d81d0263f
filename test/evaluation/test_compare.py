"""Differences of two runs, and how sure they are."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfuser_ros.errors import InputError
from mfuser_ros.evaluation.boundary import Boundary
from mfuser_ros.evaluation.compare import LEAST_BLOCKS, FrameKey, assign_blocks, compare, open_run
from mfuser_ros.evaluation.metrics import Calibration, Confusion
from mfuser_ros.evaluation.record import COUNTS, SCORES, score_columns

NAMES = ["road", "car", "sky"]
SCHEMA = pa.schema(
    {
        "bag": pa.string(), "topic": pa.string(), "index": pa.int64(), "time_s": pa.float64(),
        "confidence": pa.float64(), "latency_ms": pa.float64(), **SCORES, **COUNTS,
    }
)  # fmt: skip


def confusion(right, seed):
    """A picture of 300 pixels, 100 of each class, of which so many are right; the rest is taken for the next class."""
    draw = np.random.default_rng(seed)
    counts = np.zeros((3, 4), np.int64)
    for label in range(3):
        hits = int(np.clip(right[label] + draw.integers(-3, 4), 0, 100))
        counts[label, label], counts[label, (label + 1) % 3] = hits, 100 - hits
    return counts


def write_run(folder, right, *, frames=60, seed=0, names=NAMES, labels=True, bag="/data/drive"):
    """A finished run of frames, one each half second; `right` gives the right pixels of each class by index."""
    folder.mkdir()
    total, rows = Confusion.empty(3), []
    for index in range(frames):
        one = Confusion(confusion(right(index), 1000 * seed + index))
        total.counts += one.counts
        scores = score_columns(one, Calibration.empty(), Boundary.empty(3), 0)
        scores = scores if labels else dict.fromkeys(scores)
        rows.append(
            {"bag": bag, "topic": "/a", "index": index, "time_s": index / 2, "confidence": 0.5, "latency_ms": 9.0}
            | scores
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "frames.parquet")
    scores = total.scores()
    classes = [
        {"id": place, "name": name, "iou": scores.iou[place], "precision": scores.precision[place],
         "recall": scores.recall[place], "share": scores.share[place]}
        for place, name in enumerate(names)
    ]  # fmt: skip
    road = {key: classes[0][key] for key in ("precision", "recall", "iou")}
    summary = {
        "input": "x", "model": {"name": "m", "sha256": "0"}, "classes": classes, "road": road if labels else None,
        "confusion": total.counts.tolist() if labels else None, "miou": scores.miou,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    return open_run(folder)


def by_name(entries):
    return {entry["name"]: entry for entry in entries}


def test_differences_are_those_of_the_two_summaries(tmp_path):
    a = write_run(tmp_path / "a", lambda index: (90, 80, 70))
    b = write_run(tmp_path / "b", lambda index: (90, 60, 70), seed=1)
    comparison = compare(a, b)
    metrics, classes = by_name(comparison["metrics"]), by_name(comparison["classes"])
    assert metrics["miou"]["a"] == pytest.approx(a.summary["miou"], rel=1e-12)
    assert metrics["miou"]["b"] == pytest.approx(b.summary["miou"], rel=1e-12)
    for place, name in enumerate(NAMES):
        expected = b.summary["classes"][place]["iou"] - a.summary["classes"][place]["iou"]
        assert classes[name]["difference"] == pytest.approx(expected, rel=1e-9)
    assert metrics["road_iou"]["a"] == pytest.approx(a.summary["road"]["iou"])
    assert comparison["frames"] == 60


def test_clear_loss_is_significant_and_its_interval_holds_it(tmp_path):
    a = write_run(tmp_path / "a", lambda index: (90, 80, 70))
    b = write_run(tmp_path / "b", lambda index: (90, 60, 70), seed=1)
    car = by_name(compare(a, b, draws=500)["classes"])["car"]
    assert car["significant"]
    assert car["p"] < 0.01
    assert car["low"] < car["difference"] < car["high"] < 0


def test_noise_alone_is_rarely_taken_for_a_change(tmp_path):
    found = []
    for number in range(20):
        a = write_run(tmp_path / f"a{number}", lambda index: (90, 80, 70), seed=2 * number)
        b = write_run(tmp_path / f"b{number}", lambda index: (90, 80, 70), seed=2 * number + 1)
        found.append(by_name(compare(a, b, draws=300)["metrics"])["miou"]["p"])
    assert sum(p < 0.05 for p in found) <= 4  # one expected of 20; five or more have a probability below 0.3 %
    assert max(found) > 0.3


def test_blocks_keep_a_slow_drift_from_looking_sure(tmp_path, monkeypatch):
    # B differs from A by a wave of a minute: neighbours agree, so frames taken one by one seem surer than they are
    a = write_run(tmp_path / "a", lambda index: (90, 80, 70), frames=200)
    b = write_run(tmp_path / "b", lambda index: (90, 80 + 18 * np.sin(index / 19), 70), frames=200, seed=1)
    blocks = by_name(compare(a, b)["metrics"])["miou"]
    monkeypatch.setattr("mfuser_ros.evaluation.compare.BLOCK_S", 0.5)
    singles = by_name(compare(a, b)["metrics"])["miou"]
    widths = [entry["high"] - entry["low"] for entry in (singles, blocks)]
    assert widths[1] > 1.5 * widths[0]  # four alike in a block: twice as wide


def test_same_run_differs_nowhere(tmp_path):
    run = write_run(tmp_path / "a", lambda index: (90, 80, 70))
    comparison = compare(run, run)
    assert all(entry["difference"] == 0 and entry["p"] == 1 for entry in comparison["classes"])
    assert not any(entry["significant"] for entry in comparison["classes"])


def test_draws_are_the_same_every_time(tmp_path):
    a = write_run(tmp_path / "a", lambda index: (90, 80, 70))
    b = write_run(tmp_path / "b", lambda index: (90, 60, 70), seed=1)
    assert compare(a, b) == compare(a, b)


def test_short_recordings_say_nothing_about_chance(tmp_path):
    frames = 4 * (LEAST_BLOCKS - 1)
    a = write_run(tmp_path / "a", lambda index: (90, 80, 70), frames=frames)
    b = write_run(tmp_path / "b", lambda index: (90, 60, 70), frames=frames, seed=1)
    comparison = compare(a, b)
    assert comparison["blocks"] == LEAST_BLOCKS - 1
    miou = by_name(comparison["metrics"])["miou"]
    assert miou["difference"] < 0
    assert miou["p"] is None


def test_frames_that_differ_most_come_first(tmp_path):
    a = write_run(tmp_path / "a", lambda index: (90, 80, 70))
    b = write_run(tmp_path / "b", lambda index: (90, 20 if index == 31 else 80, 70), seed=1)
    first = compare(a, b)["most_different"][0]
    assert (first["topic"], first["index"], first["time_s"]) == ("/a", 31, 15.5)
    assert first["difference"] < -0.1


def test_only_common_frames_count(tmp_path):
    a = write_run(tmp_path / "a", lambda index: (90, 80, 70))
    b = write_run(tmp_path / "b", lambda index: (90, 80, 70), frames=40, bag="/elsewhere/drive")
    comparison = compare(a, b)
    assert (comparison["frames"], comparison["frames_only_a"], comparison["frames_only_b"]) == (40, 20, 0)


def test_runs_without_labels_are_compared_by_confidence_and_latency(tmp_path):
    a = write_run(tmp_path / "a", lambda index: (90, 80, 70), labels=False)
    b = write_run(tmp_path / "b", lambda index: (90, 80, 70), labels=False)
    comparison = compare(a, b)
    assert comparison["classes"] == []
    assert {entry["name"] for entry in comparison["metrics"]} == {"confidence", "latency_ms"}


def test_runs_on_sets_are_joined_by_the_names_of_their_pictures(tmp_path):
    for name, car in (("a", 80), ("b", 60)):
        run = write_run(tmp_path / name, lambda index, car=car: (90, car, 70), frames=100)
        table = pq.read_table(run.folder / "frames.parquet")
        stems = pa.array([f"{index:03d}" for index in table["index"].to_pylist()])
        table = table.drop_columns(["bag", "topic", "time_s"]).append_column("stem", stems)
        pq.write_table(table, run.folder / "frames.parquet")
    comparison = compare(open_run(tmp_path / "a"), open_run(tmp_path / "b"))
    assert (comparison["frames"], comparison["blocks"]) == (100, 10)  # tens of neighbours
    assert by_name(comparison["classes"])["car"]["significant"]
    assert comparison["most_different"][0]["topic"].isdigit()


def test_runs_that_cannot_be_compared_are_one_line(tmp_path):
    a = write_run(tmp_path / "a", lambda index: (90, 80, 70))
    other = write_run(tmp_path / "b", lambda index: (90, 80, 70), names=["road", "bus", "sky"])
    with pytest.raises(InputError, match="were scored by different labels"):
        compare(a, other)
    with pytest.raises(InputError, match="share no frame"):
        compare(a, write_run(tmp_path / "c", lambda index: (90, 80, 70), bag="/data/other"))
    with pytest.raises(InputError, match="gone: no finished evaluation"):
        open_run(tmp_path / "gone")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"d: no finished evaluation \(frames.parquet or classes are missing\)"):
        open_run(tmp_path / "d")


def test_blocks_are_stretches_of_one_camera_or_tens_of_pictures():
    drive = {FrameKey("bag", topic, index): index * 0.5 for index in range(6) for topic in ("/a", "/b")}
    blocks = assign_blocks(drive)
    assert [blocks[FrameKey("bag", "/a", index)] for index in range(6)] == [0, 0, 0, 0, 2, 2]
    assert [blocks[FrameKey("bag", "/b", index)] for index in range(6)] == [1, 1, 1, 1, 3, 3]
    pictures = {FrameKey("", f"{index:03d}", 0): None for index in range(25)}
    assert list(assign_blocks(pictures).values()) == [0] * 10 + [1] * 10 + [2] * 5
