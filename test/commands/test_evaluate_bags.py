"""`mfuser evaluate` on bags, as a user calls it."""

import json
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from mfuser_ros.bags import BagWriter


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Three pairs of CamVid's form, of blocks of colour, in data/camvid/dusk."""
    data = tmp_path_factory.mktemp("packed") / "data"
    root = data / "camvid" / "dusk"
    draw = np.random.default_rng(0)
    for kind in ("photo", "label"):
        (root / kind).mkdir(parents=True)
    block = np.ones((12, 12), np.uint8)
    for stem in ("x_1", "x_2", "x_3"):
        photo = np.kron(draw.integers(0, 256, (5, 8, 3), dtype=np.uint8), block[..., None])
        label = np.kron(draw.integers(0, 11, (5, 8), dtype=np.uint8), block)
        cv2.imwrite(str(root / "photo" / f"{stem}.jpg"), photo)
        cv2.imwrite(str(root / "label" / f"{stem}.png"), label)
    return data


@pytest.fixture
def bag(tmp_path, packed, mfuser):
    assert mfuser("bag", "camvid/dusk", tmp_path / "drive", "--data", packed, "--quiet").returncode == 0
    return tmp_path / "drive"


def test_bag_of_a_set_scores_like_the_set_to_the_last_digit(bag, packed, tmp_path, mfuser, random_model):
    common = ("--model", random_model, "--device", "cpu", "--size", "96x64", "--quiet")
    assert mfuser("evaluate", bag, *common, "--out", tmp_path / "a").returncode == 0
    assert mfuser("evaluate", "camvid/dusk", "--data", packed, *common, "--out", tmp_path / "b").returncode == 0
    as_bag, as_set = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("a", "b"))
    assert as_bag["frames"] == as_set["frames"] == 3
    assert as_bag["miou"] == as_set["miou"]
    for key in ("confusion", "classes", "road", "boundary_iou", "calibration", "pixel_accuracy"):
        assert as_bag[key] == as_set[key]
    assert [*as_set] == [*as_bag][: len(as_set)]  # the keys of design, then those of bags


def test_table_and_files_are_left(bag, tmp_path, mfuser, random_model):
    done = mfuser("evaluate", bag, "--model", random_model, "--device", "cpu", "--out", tmp_path / "out")
    assert done.returncode == 0
    assert "3 frames, 3 with labels, random" in done.stdout
    assert "signsymbol" in done.stdout
    assert str(tmp_path / "out" / "report.html") in done.stdout
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "bags", "frames.parquet", "report.html", "summary.json",
    }  # fmt: skip


def test_broken_limit_is_exit_code_1_for_bags_and_sets(bag, packed, mfuser, random_model):
    common = ("--model", random_model, "--device", "cpu", "--size", "96x64", "--quiet", "--limit", "miou>=0.9")
    for source in ((bag,), ("camvid/dusk", "--data", packed)):
        done = mfuser("evaluate", *source, *common)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("mfuser: limit miou>=0.9 is broken: miou is 0.")


def test_damaged_bag_is_evaluated_named_and_exit_code_2(bag, tmp_path, mfuser, random_model):
    file = bag / "drive.mcap"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    done = mfuser("evaluate", bag, "--model", random_model, "--device", "cpu", "--out", tmp_path / "out", "--quiet")
    assert done.returncode == 2
    assert "drive.mcap: ends or breaks off at byte" in done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["incomplete"]
    assert 1 <= summary["frames"] < 3
    assert "ends or breaks off" in (tmp_path / "out" / "report.html").read_text()


def test_folder_of_bags_is_each_of_them_and_one_bad_bag_does_not_stop_the_rest(bag, tmp_path, mfuser, random_model):
    archive = tmp_path / "archive"
    archive.mkdir()
    bag.rename(archive / "drive")
    (archive / "broken.mcap").write_bytes(b"nothing")
    done = mfuser("evaluate", archive, "--model", random_model, "--device", "cpu", "--out", tmp_path / "out", "--quiet")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "broken.mcap: damaged or no bag (is neither MCAP nor SQLite)" in done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["frames"] == 3
    assert len(summary["unreadable"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--pose", "1,2,3"), "give x,y,z,roll,pitch,yaw"),
        (("--pose", "1,2,3,4,5,6", "--pose", "1,2,3,4,5,7"), "given twice for all topics"),
        (("--topic", "/rear"), "no picture topic /rear"),
        (("--labels", "/nowhere"), "/nowhere: neither a topic of the bag nor a folder"),
        (("--scheme", "nothing"), "nothing.yaml: cannot be read"),
        (("--limit", "mIoU>=1"), "limit on mIoU: no such metric"),
        (("--scenarios", "suite.yaml"), "the scenarios name their bags"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(bag, mfuser, random_model, arguments, said):
    done = mfuser("evaluate", bag, *arguments, "--model", random_model, "--device", "cpu", "--quiet")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_scenarios_leave_a_junit_file(bag, tmp_path, mfuser, random_model):
    (tmp_path / "suite.yaml").write_text(
        "name: s\nscenarios:\n"
        "  - {name: a, bag: drive, limits: [miou>=0, miou>=0.99]}\n"
        "  - {name: b, bag: drive, limits: [frames>=3]}\n"
    )
    options = ("--junit", tmp_path / "junit.xml", "--model", random_model, "--device", "cpu")
    done = mfuser("evaluate", "--scenarios", tmp_path / "suite.yaml", *options)
    assert done.returncode == 1
    assert "broken" in done.stdout
    assert ET.parse(tmp_path / "junit.xml").getroot().get("failures") == "1"


def test_workers_and_topics_by_name_are_taken_from_the_command_line(tmp_path, mfuser, random_model):
    for number in range(2):
        with BagWriter(tmp_path / f"day_{number}") as writer:
            for topic in ("/front/image_raw", "/rear/image_raw"):
                for index in range(2 + number):
                    picture = np.full((30, 40, 3), 50 * index, np.uint8)
                    writer.image(topic, picture, encoding="rgb8", stamp_ns=index, frame_id="eye")
    bags = (tmp_path / "day_0", tmp_path / "day_1", "--topic", "/rear/image_raw", "--every", 2)
    options = ("--workers", 2, "--threads", 1, "--model", random_model, "--device", "cpu", "--quiet")
    done = mfuser("evaluate", *bags, *options, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["frames"] == 1 + 2  # of 2 and 3 frames every other
