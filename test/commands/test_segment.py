"""`mfuser segment` on real files: what it writes, what it leaves alone, what it says of bad input."""

import json

import cv2
import numpy as np
import pytest

import mfuser_ros
from mfuser_ros.datasets import video
from mfuser_ros.inference import Steady


def grey(path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def write_picture(path, height=40, width=60, seed=0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    blots = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    picture = cv2.resize(blots, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), picture[:, :, ::-1])
    return picture


@pytest.fixture(scope="session")
def options(random_model):
    return ("--model", random_model, "--device", "cpu")


def test_folder_gives_one_grey_png_of_class_ids_per_picture_and_prints_nothing(mfuser, options, random_model, tmp_path):
    pictures = {"a": write_picture(tmp_path / "in/a.png"), "b": write_picture(tmp_path / "in/b.PNG", 33, 47, seed=1)}

    finished = mfuser("segment", tmp_path / "in", "--out", tmp_path / "out", "--threshold", 0, "--quiet", *options)

    assert finished == (0, "", "")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    segmenter = mfuser_ros.load(random_model, device="cpu")
    for name, picture in pictures.items():
        mask = grey(tmp_path / "out" / f"{name}.png")
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, segmenter(picture).labels)  # PNG is lossless, and so is the mask


def test_folders_in_a_folder_are_kept(mfuser, options, tmp_path):
    write_picture(tmp_path / "in/left/1.png")
    write_picture(tmp_path / "in/right/1.png")

    finished = mfuser("segment", tmp_path / "in", "--out", tmp_path / "out", *options)

    assert finished.returncode == 0
    assert (tmp_path / "out/left/1.png").exists()
    assert (tmp_path / "out/right/1.png").exists()


def test_overlay_and_confidence_are_written_beside_the_mask(mfuser, options, random_model, tmp_path):
    picture = write_picture(tmp_path / "street.png")

    finished = mfuser(
        "segment", tmp_path / "street.png", "--out", tmp_path / "out", "--overlay", "--confidence", *options
    )

    assert finished.returncode == 0, finished.stderr
    result = mfuser_ros.load(random_model, device="cpu")(picture)
    assert np.array_equal(grey(tmp_path / "out/street.png"), result.mask)
    assert np.array_equal(grey(tmp_path / "out/street_confidence.png"), result.confidence)
    overlay = grey(tmp_path / "out/street_overlay.jpg")[:, :, ::-1].astype(int)
    # JPEG at quality 90 moves a smooth picture by a few levels; red and blue swapped would move it by far more
    assert np.abs(overlay - result.overlay().astype(int)).mean() < 6


def test_threshold_makes_pixels_unknown(mfuser, options, tmp_path):
    write_picture(tmp_path / "street.png")

    finished = mfuser("segment", tmp_path / "street.png", "--out", tmp_path / "out", "--threshold", 1, *options)

    assert finished.returncode == 0
    assert (grey(tmp_path / "out/street.png") == 255).all()


def test_video_gives_a_mask_per_frame_and_an_overlay_of_the_same_times(mfuser, options, tmp_path):
    times = [0.0, 0.1, 0.35]
    with video.VideoWriter(tmp_path / "drive.mp4", rate_hz=10) as writer:
        for time_s in times:
            writer.write(np.full((48, 64, 3), 90, np.uint8), time_s)

    finished = mfuser("segment", tmp_path / "drive.mp4", "--out", tmp_path / "out", "--overlay", *options)

    assert finished.returncode == 0, finished.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "drive_000000.png", "drive_000001.png", "drive_000002.png", "drive_overlay.mp4",
    ]  # fmt: skip
    assert grey(tmp_path / "out/drive_000002.png").shape == (48, 64)
    played = list(video.frames(tmp_path / "out/drive_overlay.mp4"))
    assert [frame.time_s for frame in played] == pytest.approx(times, abs=1e-3)


def test_bag_gives_a_mask_per_message(mfuser, options, tmp_path):
    write_picture(tmp_path / "pictures/0.png", 48, 64)
    write_picture(tmp_path / "pictures/1.png", 48, 64, seed=1)
    assert mfuser("bag", "make", tmp_path / "pictures", "--out", tmp_path / "drive", "--rate", 5).returncode == 0

    finished = mfuser("segment", tmp_path / "drive", "--out", tmp_path / "out", "--overlay", *options)

    assert finished.returncode == 0, finished.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "drive_000000.png", "drive_000001.png", "drive_overlay.mp4",
    ]  # fmt: skip
    times = [frame.time_s for frame in video.frames(tmp_path / "out/drive_overlay.mp4")]
    assert times == pytest.approx([0, 0.2], abs=1e-3)


def test_steady_video_is_that_of_the_filter_and_flips_are_counted(mfuser, options, random_model, tmp_path):
    bright = write_picture(tmp_path / "0.png", 96, 128)
    with video.VideoWriter(tmp_path / "drive.mp4", rate_hz=10) as writer:
        for index in range(4):
            writer.write(bright // (index % 2 + 1))  # the light flickers, and with it how sure the model is
    segmenter = mfuser_ros.load(random_model, device="cpu", threshold=0)
    frames = list(video.frames(tmp_path / "drive.mp4"))
    unsure, sure = sorted(int(np.median(segmenter(frame.picture).confidence)) for frame in frames[:2])
    segmenter.threshold = (unsure + sure) / 2 / 255  # unknown in every second frame
    common = ("--flips", "--threshold", segmenter.threshold, *options)

    single = mfuser("segment", tmp_path / "drive.mp4", "--out", tmp_path / "single", *common)
    filtered = mfuser("segment", tmp_path / "drive.mp4", "--out", tmp_path / "out", "--steady", *common)

    assert (single.returncode, filtered.returncode) == (0, 0), single.stderr + filtered.stderr
    steady = Steady(segmenter)
    for index, frame in enumerate(frames):
        expected = steady(frame.picture, time_s=frame.time_s)
        assert np.array_equal(grey(tmp_path / f"out/drive_{index:06d}.png"), expected.mask)
    before, after = (json.loads((tmp_path / folder / "drive_flips.json").read_text()) for folder in ("single", "out"))
    assert before["pairs"] == after["pairs"] == 3
    assert before["flips_per_s"] > 9  # nearly every point in every frame, ten frames a second
    assert after["flips_per_s"] < before["flips_per_s"] / 2


def test_single_pictures_are_never_held(mfuser, options, random_model, tmp_path):
    picture = write_picture(tmp_path / "in/a.png")
    write_picture(tmp_path / "in/b.png", seed=1)

    finished = mfuser("segment", tmp_path / "in", "--out", tmp_path / "out", "--steady", "--flips", *options)

    assert finished.returncode == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert np.array_equal(grey(tmp_path / "out/a.png"), mfuser_ros.load(random_model, device="cpu")(picture).mask)


def test_bag_without_the_topic_is_named(mfuser, options, tmp_path):
    write_picture(tmp_path / "pictures/0.png", 48, 64)
    assert mfuser("bag", "make", tmp_path / "pictures", "--out", tmp_path / "drive").returncode == 0

    finished = mfuser("segment", tmp_path / "drive", "--out", tmp_path / "out", "--topic", "/rear", *options)

    assert finished.returncode == 2
    assert "no picture topic /rear" in finished.stderr


def test_unreadable_inputs_are_named_and_the_others_done(mfuser, options, tmp_path):
    write_picture(tmp_path / "good.png")
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    (tmp_path / "torn.mp4").write_bytes(b"no video")

    finished = mfuser(
        "segment", tmp_path / "torn.jpg", tmp_path / "torn.mp4", tmp_path / "none.png", tmp_path / "good.png",
        "--out", tmp_path / "out", "--quiet", *options,
    )  # fmt: skip

    assert finished.returncode == 2
    assert finished.stdout == ""
    complaints = finished.stderr.splitlines()
    assert len(complaints) == 3
    for name, said in (
        ("torn.jpg", "does not decode"),
        ("torn.mp4", "no readable video"),
        ("none.png", "no such file"),
    ):
        assert sum(name in line and said in line for line in complaints) == 1
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["good.png"]


def test_results_are_no_input_of_a_second_run(mfuser, options, tmp_path):
    write_picture(tmp_path / "a.png")
    arguments = ("segment", tmp_path, "--out", tmp_path / "masks", *options)

    assert mfuser(*arguments).returncode == 0
    assert mfuser(*arguments).returncode == 0
    assert [file.name for file in (tmp_path / "masks").iterdir()] == ["a.png"]


def test_picture_is_never_overwritten(mfuser, options, tmp_path):
    picture = write_picture(tmp_path / "a.png")

    finished = mfuser("segment", tmp_path, "--out", tmp_path, *options)

    assert finished.returncode == 2
    assert "would be overwritten" in finished.stderr
    assert np.array_equal(grey(tmp_path / "a.png")[:, :, ::-1], picture)


def test_two_pictures_of_one_name_are_refused(mfuser, options, tmp_path):
    write_picture(tmp_path / "left/1.png")
    write_picture(tmp_path / "right/1.png")

    finished = mfuser("segment", tmp_path / "left/1.png", tmp_path / "right/1.png", "--out", tmp_path / "out", *options)

    assert finished.returncode == 2
    assert "would both write" in finished.stderr
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_written_is_one_line(mfuser, options, tmp_path):
    write_picture(tmp_path / "a.png")
    (tmp_path / "file").write_text("no folder", encoding="utf-8")

    finished = mfuser("segment", tmp_path / "a.png", "--out", tmp_path / "file/out", *options)

    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert "cannot be written" in finished.stderr
