import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from mfuser_ros.bags import BagReader
from mfuser_ros.commands.app import app
from mfuser_ros.datasets.video import VideoWriter
from mfuser_ros.errors import InputError, MFuserError

CALIBRATION = """
image_width: 64
image_height: 48
camera_matrix: {rows: 3, cols: 3, data: [50, 0, 31.5, 0, 50, 23.5, 0, 0, 1]}
distortion_model: plumb_bob
"""


def run(*arguments):
    return CliRunner().invoke(app, ["bag", *map(str, arguments)])


def stamps(path):
    with BagReader(path) as bag:
        return [frame.stamp_ns for frame in bag.frames(bag.image_topic())]


@pytest.fixture
def video(tmp_path):
    """Ten frames at 25/s; frame i has the grey value 20 i."""
    path = tmp_path / "drive.mp4"
    with VideoWriter(path, rate_hz=25) as writer:
        for index in range(10):
            writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    return path


def test_every_third_frame_of_a_video_keeps_its_time(video, tmp_path):
    done = run("make", video, "--out", tmp_path / "bag", "--start", 1, "--stop", 9, "--every", 3)
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'bag'}: 3 frames on /front/image_raw/compressed" in done.output
    start_ns = 1_700_000_000 * 10**9
    assert stamps(tmp_path / "bag") == [start_ns, start_ns + 120_000_000, start_ns + 240_000_000]
    with BagReader(tmp_path / "bag") as bag:
        greys = [cv2.imdecode(frame.message.data, 0).mean() for frame in bag.frames(bag.image_topic())]
    np.testing.assert_allclose(greys, [20, 80, 140], atol=4)  # frames 1, 4, 7


def test_calibration_and_names_are_recorded(video, tmp_path):
    (tmp_path / "camera.yaml").write_text(CALIBRATION)
    options = ("--camera-info", tmp_path / "camera.yaml", "--topic", "/rear/raw", "--frame-id", "rear", "--quiet")
    done = run("make", video, "--out", tmp_path / "bag", "--storage", "sqlite3", *options)
    assert (done.exit_code, done.output) == (0, "")
    with BagReader(tmp_path / "bag" / "bag.db3") as bag:
        frame = next(bag.frames("/rear/raw/compressed"))
    assert frame.frame_id == "rear"
    assert frame.info.k[2] == 31.5


def test_folder_of_pictures_is_taken_in_the_order_of_the_names(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, grey in (("b.png", 200), ("a.png", 100), ("note.txt", 0)):
        cv2.imencode(".png", np.full((4, 4), grey, np.uint8))[1].tofile(folder / name)
    done = run("make", folder, "--out", tmp_path / "bag", "--raw", "--rate", 2, "--start-time", 5)
    assert done.exit_code == 0, done.output
    assert stamps(tmp_path / "bag") == [5_000_000_000, 5_500_000_000]
    with BagReader(tmp_path / "bag") as bag:
        frames = list(bag.frames("/front/image_raw"))
    assert [int(frame.message.data[0]) for frame in frames] == [100, 200]
    assert frames[0].message.encoding == "rgb8"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("gone.mp4", "gone.mp4: no such file"),
        ("empty", "empty: no pictures"),
        ("broken", "a.png: does not decode as a picture"),
    ],
)
def test_source_that_cannot_be_used_is_named_and_leaves_no_bag(tmp_path, source, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    done = run("make", tmp_path / source, "--out", tmp_path / "bag")
    assert isinstance(done.exception, InputError)  # `main` makes a line and exit code 2 of it
    assert said in str(done.exception)
    assert not (tmp_path / "bag").exists()


@pytest.fixture
def packed(tmp_path):
    """Three pairs of CamVid's form, of noise, under tmp_path / "data" / camvid / dusk."""
    root = tmp_path / "data" / "camvid" / "dusk"
    draw = np.random.default_rng(0)
    for kind in ("photo", "label"):
        (root / kind).mkdir(parents=True)
    for stem in ("x_1", "x_2", "x_3"):
        cv2.imwrite(str(root / "photo" / f"{stem}.jpg"), draw.integers(0, 255, (36, 48, 3), np.uint8))
        cv2.imwrite(str(root / "label" / f"{stem}.png"), draw.integers(0, 11, (36, 48), np.uint8))
    return root


@pytest.mark.parametrize("by_path", [True, False])
def test_data_set_becomes_a_bag_with_labels_and_their_meaning(packed, tmp_path, by_path):
    source = (packed,) if by_path else ("camvid/dusk", "--data", tmp_path / "data")
    done = run(*source, "--out", tmp_path / "bag", "--rate", 1)  # without the word make
    assert done.exit_code == 0, done.output
    assert "3 frames on /front/image_raw/compressed, /front/label" in done.output
    with BagReader(tmp_path / "bag") as bag:
        files = [bytes(frame.message.data) for frame in bag.frames("/front/image_raw/compressed")]
        labels = [message.data.reshape(36, 48) for message in bag.messages("/front/label")]
        (scheme,) = bag.messages("/front/label/scheme")
    assert files == [file.read_bytes() for file in sorted((packed / "photo").iterdir())]
    np.testing.assert_array_equal(labels[1], cv2.imread(str(packed / "label" / "x_2.png"), cv2.IMREAD_UNCHANGED))
    assert json.loads(scheme.data)["labels"][3] == {"id": 3, "name": "road", "members": [0]}


def test_folder_takes_labels_of_the_same_names(packed, tmp_path):
    folders = (packed / "photo", tmp_path / "bag", "--labels", packed / "label", "--scheme", "camvid")
    assert run(*folders).exit_code == 0
    with BagReader(tmp_path / "bag") as bag:
        assert bag.count("/front/label") == 3
    (packed / "label" / "x_2.png").unlink()
    done = run(packed / "photo", tmp_path / "other", "--labels", packed / "label")
    assert isinstance(done.exception, InputError)
    assert "x_2.png: missing, the label of" in str(done.exception)
    assert not (tmp_path / "other").exists()


def test_phone_video_gets_intrinsics_from_its_field_of_view(video, tmp_path):
    assert run(video, tmp_path / "bag", "--hfov", 90).exit_code == 0
    with BagReader(tmp_path / "bag") as bag:
        info = next(bag.frames(bag.image_topic())).info
    assert (info.width, info.height) == (64, 48)
    np.testing.assert_allclose(info.k, [32, 0, 31.5, 0, 32, 23.5, 0, 0, 1])  # 64 / 2 / tan(45 degrees)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("x.mp4",), "where to"),
        (("x.mp4", "a", "--out", "b"), "where to"),
        (("x.mp4", "a", "--hfov", 90, "--camera-info", "c.yaml"), "both state intrinsics"),
        (("x.mp4", "a", "--labels", "b"), "belongs to a folder of pictures"),
        (("camvid/noon", "a", "--data", "."), "has no split 'noon'"),
    ],
)
def test_wrong_use_is_one_line(arguments, said):
    done = run(*arguments)
    assert isinstance(done.exception, MFuserError)
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)


def test_info_lists_topics_and_span(video, tmp_path):
    run("make", video, "--out", tmp_path / "bag")
    done = run("info", tmp_path / "bag")
    assert done.exit_code == 0
    assert f"{tmp_path / 'bag'}: 0.360 s from 1700000000.000, 10 messages" in done.output
    assert [line.split() for line in done.output.splitlines()[1:]] == [
        ["topic", "type", "messages"],
        ["/front/image_raw/compressed", "sensor_msgs/msg/CompressedImage", "10"],
    ]


def test_info_of_no_bag_says_what_is_missing(tmp_path):
    done = run("info", tmp_path)
    assert isinstance(done.exception, InputError)
    assert "folder has no metadata.yaml" in str(done.exception)
