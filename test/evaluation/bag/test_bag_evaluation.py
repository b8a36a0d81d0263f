"""Every frame of a bag once, the same result every time, equal to that of the pictures as a data set."""

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import mfuser_ros
from mfuser_ros.bags import BagWriter
from mfuser_ros.commands.bag_evaluation import edge
from mfuser_ros.datasets.config import load_config
from mfuser_ros.datasets.packed import Sample
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.evaluation.bag.fleet.task import Task, finished, perform
from mfuser_ros.evaluation.bag.frames import TIMES
from mfuser_ros.evaluation.bag.run import load_segmenter
from mfuser_ros.evaluation.dataset import evaluate
from mfuser_ros.evaluation.summary import summarise

PERIOD_NS = 100_000_000
START_NS = 10**18


def timeless(table):
    """Rows without what differs from run to run."""
    return table.drop_columns(list(TIMES)).to_pylist()


def rows(folder):
    return pq.read_table(folder / "frames.parquet")


def without_time(summary):
    return {key: value for key, value in summary.items() if key not in ("latency_ms", "bags", "environment")}


def test_scores_equal_those_of_the_data_set_to_the_last_digit(tmp_path, drive, scene, settings, evaluated):
    summary = evaluated([drive(tmp_path / "bag")], tmp_path / "out", settings)

    segmenter = mfuser_ros.load(settings.model, device="cpu", threshold=0)
    config = load_config("cityscapes256")
    samples = [Sample(*scene(index), str(index)) for index in range(6)]

    def probabilities(pictures, size):
        return torch.stack([torch.from_numpy(segmenter.probabilities(picture, size)) for picture in pictures])

    as_set = summarise(evaluate(samples, config, probabilities, batch=1), source="set", model={}, settings={})
    assert summary["frames"] == summary["labelled_frames"] == 6
    assert summary["confusion"] == as_set["confusion"]
    assert summary["miou"] == as_set["miou"]
    assert summary["calibration"]["ece"] == pytest.approx(as_set["calibration"]["ece"], rel=1e-12)
    assert [entry["iou"] for entry in summary["classes"]] == [entry["iou"] for entry in as_set["classes"]]
    assert summary["road"] == as_set["road"]


def test_second_run_is_the_same_to_the_bit(tmp_path, drive, settings, evaluated):
    bag = drive(tmp_path / "bag")
    first = evaluated([bag], tmp_path / "a", settings)
    second = evaluated([bag], tmp_path / "b", settings)
    assert without_time(first) == without_time(second)
    assert timeless(rows(tmp_path / "a")) == timeless(rows(tmp_path / "b"))
    assert json.dumps(first["settings"])


def test_sqlite_gives_what_mcap_gives(tmp_path, drive, settings, evaluated):
    drive(tmp_path / "1" / "bag")
    drive(tmp_path / "2" / "bag", storage="sqlite3")
    results = [evaluated([tmp_path / name / "bag"], tmp_path / name, settings) for name in ("1", "2")]
    assert without_time(results[0]) == without_time(results[1])


def test_rows_tell_each_frame_once_in_recorded_order(tmp_path, drive, settings, evaluated):
    evaluated([drive(tmp_path / "bag")], tmp_path / "out", settings)
    table = rows(tmp_path / "out").to_pylist()
    assert [row["index"] for row in table] == list(range(6))
    assert [row["stamp_ns"] for row in table] == [START_NS + index * PERIOD_NS for index in range(6)]
    assert table[3]["time_s"] == pytest.approx(0.3)
    assert table[0]["frame_id"] == "eye"
    shares = sum(table[0][f"share_{name}"] for name in mfuser_ros.vocabulary.load().names)
    assert shares + table[0]["unknown_share"] == pytest.approx(1)


def test_bag_without_labels_tells_shares_confidence_unknown_and_flips(tmp_path, drive, settings, evaluated):
    summary = evaluated([drive(tmp_path / "bag", labels=False)], tmp_path / "out", settings)
    assert (summary["miou"], summary["confusion"], summary["labelled_frames"]) == (None, None, 0)
    predicted = summary["predicted"]
    assert sum(predicted["shares"].values()) + predicted["unknown_share"] == pytest.approx(1)
    assert sum(entry["share"] for entry in summary["classes"]) == pytest.approx(1 - predicted["unknown_share"])
    assert 0 < predicted["confidence"] < 1
    assert summary["temporal"]["pairs"] + summary["temporal"]["cuts"] == 5
    assert summary["latency_ms"]["p50"] > 0


def test_two_cameras_are_both_evaluated_unless_one_is_named(tmp_path, scene, settings, evaluated):
    with BagWriter(tmp_path / "bag") as bag:
        for index in range(3):
            for topic in ("/front/image_raw", "/rear/image_raw"):
                bag.image(topic, scene(index)[0], encoding="rgb8", stamp_ns=index, frame_id="eye")
            bag.mask("/mfuser/front/mask", scene(index)[1], stamp_ns=index, frame_id="eye")
    both = evaluated([tmp_path / "bag"], tmp_path / "both", settings)
    rear = evaluated(
        [tmp_path / "bag"], tmp_path / "rear", settings.model_copy(update={"topics": ("/rear/image_raw",)})
    )
    assert (both["frames"], rear["frames"]) == (6, 3)
    assert {row["topic"] for row in rows(tmp_path / "both").to_pylist()} == {"/front/image_raw", "/rear/image_raw"}


def test_jpeg_and_png_pictures_are_decoded(tmp_path, scene, settings, evaluated):
    with BagWriter(tmp_path / "bag") as bag:
        for index, suffix in enumerate((".jpg", ".png")):
            encoded = cv2.imencode(suffix, scene(index)[0])[1].tobytes()
            bag.compressed_image("/a/image_raw/compressed", encoded, form=suffix, stamp_ns=index, frame_id="eye")
    assert evaluated([tmp_path / "bag"], tmp_path / "out", settings)["frames"] == 2


def test_window_leaves_out_what_lies_outside(tmp_path, drive, settings, evaluated):
    window = settings.model_copy(update={"start_s": 0.1, "stop_s": 0.3})
    evaluated([drive(tmp_path / "bag")], tmp_path / "out", window)
    assert [row["index"] for row in rows(tmp_path / "out").to_pylist()] == [1, 2]


def test_picture_that_does_not_decode_is_counted_named_and_passed_over(tmp_path, scene, settings, evaluated):
    with BagWriter(tmp_path / "bag") as bag:
        for index in range(4):
            encoded = cv2.imencode(".jpg", scene(index)[0])[1].tobytes()
            encoded = encoded[: len(encoded) // 2] if index == 2 else encoded
            bag.compressed_image("/a/image_raw/compressed", encoded, form="jpeg", stamp_ns=index, frame_id="eye")
    summary = evaluated([tmp_path / "bag"], tmp_path / "out", settings)
    assert (summary["frames"], summary["corrupt_messages"], summary["incomplete"]) == (3, 1, False)
    assert summary["bags"][0]["damage"][0].startswith("/a/image_raw/compressed: picture 2 at 2: JPEG of")


def test_cut_bag_is_evaluated_to_its_last_message(tmp_path, drive, settings, evaluated):
    bag = drive(tmp_path / "bag", labels=False)
    file = bag / "bag.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    summary = evaluated([bag], tmp_path / "out", settings)
    assert summary["incomplete"] is True
    assert 1 <= summary["frames"] <= 4
    assert summary["bags"][0]["expected"] == 6


def test_interrupted_run_goes_on_where_it_stopped_and_ends_the_same(tmp_path, drive, settings, evaluated):
    bag = drive(tmp_path / "bag")
    whole = evaluated([bag], tmp_path / "whole", settings)
    segmenter = load_segmenter(settings)
    frames = perform(Task(str(bag), settings, edge()), tmp_path / "cut", segmenter)
    for _ in range(3):
        next(frames)
    frames.close()  # what an interrupt does to the loop
    (part,) = (tmp_path / "cut" / "bags").glob("*/part-*.parquet")
    assert pq.read_metadata(part).num_rows == 3
    again = evaluated([bag], tmp_path / "cut", settings)
    assert without_time(whole) == without_time(again)
    assert timeless(rows(tmp_path / "whole")) == timeless(rows(tmp_path / "cut"))


def test_what_is_done_is_not_done_again_until_the_content_changes(tmp_path, drive, settings, evaluated):
    bag = drive(tmp_path / "bag")
    evaluated([bag], tmp_path / "out", settings)
    segmenter = load_segmenter(settings)

    def frames(path):
        return len(list(perform(Task(str(path), settings, edge()), tmp_path / "out", segmenter)))

    assert frames(bag) == 0
    moved = (tmp_path / "elsewhere").resolve()
    bag.rename(moved)
    assert frames(moved) == 0
    assert frames(drive(tmp_path / "other", frames=5)) == 5


def test_bag_given_twice_counts_once(tmp_path, drive, settings, evaluated):
    bag = drive(tmp_path / "bag")
    assert evaluated([bag, bag], tmp_path / "out", settings)["frames"] == 6


def test_topic_that_is_not_there_is_named(tmp_path, drive, settings):
    bag = drive(tmp_path / "bag")
    wrong = settings.model_copy(update={"topics": ("/left",)})
    done = finished(perform(Task(str(bag), wrong, edge()), tmp_path / "out", load_segmenter(wrong)))
    assert "no picture topic /left: topics with pictures: /front/image_raw, /front/label" in done.error


def test_id_that_the_scheme_does_not_map_ends_the_run(tmp_path, scene, settings, evaluated):
    with BagWriter(tmp_path / "bag") as bag:
        bag.image("/a/image_raw", scene(0)[0], encoding="rgb8", stamp_ns=1, frame_id="eye")
        bag.mask("/a/label", np.full((32, 48), 77, np.uint8), stamp_ns=1, frame_id="eye")
    with pytest.raises(ConfigurationError, match="/a/label: label 0: holds id 77, vocabulary maps 0, 1, 2"):
        evaluated([tmp_path / "bag"], tmp_path / "out", settings)
