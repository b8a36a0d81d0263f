"""The report of bags, its pictures, and the drivable area."""

import json
import re
import shutil

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from mfuser_ros import vocabulary
from mfuser_ros.bags import BagWriter
from mfuser_ros.bags.calibration import pinhole
from mfuser_ros.commands.bag_evaluation import edge, evaluate_bags
from mfuser_ros.drivable import CameraModel, DrivableArea, View
from mfuser_ros.evaluation.bag.meter import GRID, FrameMeter, Mounting
from mfuser_ros.evaluation.bag.report import _thinned
from mfuser_ros.evaluation.bag.stills import StillKeeper
from mfuser_ros.evaluation.drive.birdseye import BirdsEye
from mfuser_ros.evaluation.limits import parse_limit

POSE = (0.0, 0.0, 1.4, -1.5708, 0.0, -1.5708)
VOCABULARY = vocabulary.load()


def drive_with_pose(path, scene, frames=4):
    with BagWriter(path) as bag:
        for index in range(frames):
            picture, label = scene(index)
            stamp_ns = index * 100_000_000
            bag.camera_info("/front/camera_info", pinhole(48, 32, 60), stamp_ns=stamp_ns, frame_id="eye")
            bag.image("/front/image_raw", picture, encoding="rgb8", stamp_ns=stamp_ns, frame_id="eye")
            bag.mask("/front/label", label, stamp_ns=stamp_ns, frame_id="eye")
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory, model, scene):
    """Folder of an evaluation with labels, pose and limits, and how it ended."""
    from mfuser_ros.evaluation.bag.settings import BagSettings

    folder = tmp_path_factory.mktemp("reported")
    settings = BagSettings(model=str(model), device="cpu", poses={"": POSE})
    bag = drive_with_pose(folder / "bag", scene)
    limits = [parse_limit("miou>=0"), parse_limit("miou>=0.9")]
    verdict = evaluate_bags([str(bag)], settings, limits=limits, out=folder / "out", quiet=True)
    return folder / "out", verdict


def test_broken_limit_is_told_in_summary_and_exit_code(done):
    folder, verdict = done
    assert verdict.code == 1
    summary = json.loads((folder / "summary.json").read_text())
    assert [entry["holds"] for entry in summary["limits"]] == [True, False]


def test_drivable_area_is_measured_in_picture_and_metres(done):
    folder, _ = done
    summary = json.loads((folder / "summary.json").read_text())
    rows = pq.read_table(folder / "frames.parquet").to_pylist()
    true, false, missed = np.sum([row["drivable_pixels"] for row in rows], axis=0)
    assert summary["drivable"]["iou"] == true / (true + false + missed)
    counts = np.array(summary["confusion"])  # road is group 0
    assert (true, false, missed) == (counts[0, 0], counts[1:, 0].sum(), counts[0, 1:].sum())
    cells = np.sum([row["drivable_cells"] for row in rows], axis=0)
    assert summary["drivable"]["iou_m"] == (cells[0] / cells.sum() if cells.sum() else None)
    assert summary["drivable"]["free_m2"] == np.median([row["free_m2"] for row in rows])


def test_page_opens_without_network_and_draws_its_charts(done, browse):
    page = browse(done[0] / "report.html")
    for name in ("classes", "confusion", "confidence", "timeline-0", "ground-0"):
        chart = page.dom.split(f'id="chart-{name}"')[1]
        assert chart.index("main-svg") < chart.index("</svg>")  # plotly has drawn it
    film = page.dom.split('id="film-0"')[1]
    assert film.index('src="data:image/jpeg') < film.index("<figcaption>t = 0.00 s, frame 0")  # the script has run
    shot = cv2.imread(str(page.screenshot))
    assert len(np.unique(shot.reshape(-1, 3), axis=0)) > 50


def test_page_links_timeline_and_frames_and_shows_both_ends(done):
    text = (done[0] / "report.html").read_text()
    assert re.findall(r'<(?:img|script|link)[^>]+(?:src|href)="(?!data:)[^"]*"', text) == []
    assert text.count('data-film="0"') == 2  # both charts move it
    frames = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text, re.S)[1])
    assert [frame["x"] for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert all(frame["jpeg"].startswith("/9j/") for frame in frames)
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings[:3] == ["Classes", "Confusion", "Confidence"]
    assert {"Frames of least mean IoU", "Frames of highest mean IoU", "Settings", "Environment"} <= set(headings)
    assert 'class="bad"><b>' in text  # the broken limit


def test_page_of_a_bag_without_labels_shows_shares_and_ends_of_confidence(tmp_path, drive, settings, browse):
    bags = [drive(tmp_path / "one", frames=3, labels=False), tmp_path / "two"]
    shutil.copytree(*bags)
    evaluate_bags([*map(str, bags)], settings, limits=[], out=tmp_path / "out", quiet=True)
    text = (tmp_path / "out" / "report.html").read_text()
    assert 'id="chart-shares"' in text
    assert "Frames of least confidence" in text
    # the same content twice counts once
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"] == 3


def test_perfect_mask_frees_exactly_the_ground_of_its_label(model):
    from mfuser_ros.evaluation.bag.run import load_segmenter
    from mfuser_ros.evaluation.bag.settings import BagSettings

    meter = FrameMeter(load_segmenter(BagSettings(model=str(model), device="cpu")), score_threshold=0)
    calibration = pinhole(160, 120, 70)
    camera = CameraModel(160, 120, calibration.K)
    mounting = Mounting(camera, edge().pose_matrix(POSE))
    label = np.full((120, 160), 10, np.uint8)
    label[60:] = 0  # road up to the horizon
    view = View(label, np.full_like(label, 255), camera, mounting.T_vehicle_camera)
    truth = DrivableArea(GRID, VOCABULARY).update([view]).occupancy
    row = meter._ground(truth, label, mounting)
    assert row["drivable_iou_m"] == 1
    assert row["false_free_m2"] == row["missed_free_m2"] == 0
    assert row["free_m2"] > 50
    nothing = meter._ground(np.full_like(truth, -1), label, mounting)
    assert nothing["drivable_iou_m"] == 0
    assert nothing["missed_free_m2"] == pytest.approx(row["free_m2"])


def test_pose_without_camera_info_is_a_note(tmp_path, drive, settings, evaluated):
    posed = settings.model_copy(update={"poses": {"": POSE}})
    summary = evaluated([drive(tmp_path / "bag", frames=1)], tmp_path / "out", posed)
    assert summary["bags"][0]["notes"] == ["/front/image_raw: no camera_info beside it, so no drivable area"]
    assert summary["drivable"]["free_m2"] is None


class Frame:
    """Stands for a measured frame."""

    def __init__(self, index, score):
        self.row = {
            "topic": "/a", "index": index, "time_s": index / 10, "labelled": True, "miou": score, "confidence": 0.5
        }  # fmt: skip
        self.picture = np.full((8, 12, 3), index, np.uint8)
        self.label = self.prediction = np.zeros((8, 12), np.uint8)
        self.occupancy, self.contacts = None, np.zeros((0, 4), np.float32)


def keeper(folder, state=None):
    birds_eye = BirdsEye((10, 10), resolution=1, x_min=0, y_min=0, size=(40, 60), vocabulary=VOCABULARY)
    return StillKeeper(folder, VOCABULARY.palette(), birds_eye, limit=4, state=state)


def test_few_pictures_are_kept_of_any_length_evenly_and_at_both_ends(tmp_path):
    scores = np.random.default_rng(0).random(50)
    kept = keeper(tmp_path)
    for index, score in enumerate(scores):
        kept.add(Frame(index, float(score)))
    kept.sweep()
    entries = kept.state()["kept"]
    assert [entry["index"] for entry in entries["film"]] == [0, 16, 32, 48]
    assert [entry["index"] for entry in entries["worst"]] == np.argsort(scores)[:4].tolist()
    assert [entry["index"] for entry in entries["best"]] == np.argsort(scores)[-2:].tolist()
    named = {entry["file"] for kind in entries.values() for entry in kind}
    assert {file.name for file in (tmp_path / "stills").iterdir()} == named


def test_keeping_goes_on_after_an_interruption_as_if_there_had_been_none(tmp_path):
    scores = np.random.default_rng(1).random(40)
    whole, first = keeper(tmp_path / "whole"), keeper(tmp_path / "cut")
    for index, score in enumerate(scores):
        whole.add(Frame(index, float(score)))
        if index < 25:
            first.add(Frame(index, float(score)))
        if index == 19:
            state = json.loads(json.dumps(first.state()))  # what was stored; five frames more are lost
    second = keeper(tmp_path / "cut", state)
    for index, score in enumerate(scores[20:], start=20):
        second.add(Frame(index, float(score)))
    assert second.state() == whole.state()


def test_long_lines_are_thinned_to_means_of_what_was_measured():
    x, y = _thinned(np.arange(4001.0), np.where(np.arange(4001) % 3 == 0, np.nan, 1.0))
    assert len(x) <= 2000
    assert x[0] == 1.0  # of 0, 1, 2
    np.testing.assert_array_equal(y[np.isfinite(y)], 1.0)
