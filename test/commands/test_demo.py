"""`mfuser demo`, end to end: command, node and DDS for real, with random weights of the architecture `small`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from typer.testing import CliRunner

pytest.importorskip("rclpy", reason="needs the [ros] extra")

import mfuser_ros
from mfuser_ros.bags import BagReader, BagWriter
from mfuser_ros.commands.app import app
from mfuser_ros.errors import InputError
from mfuser_ros.evaluation.drive.panels import SIZE
from mfuser_ros.node.demo import pose_parameter
from mfuser_ros.node.images import to_rgb

REPOSITORY = Path(__file__).resolve().parents[2]
DRIVE = REPOSITORY / "test" / "data" / "highway"
FRAMES = 3
COMMAND = "from mfuser_ros.commands.app import main; main()"


def run_demo(*arguments, timeout_s=180):
    """The command as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", COMMAND, "demo", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights as a model file."""
    import torch

    from mfuser_ros import vocabulary
    from mfuser_ros.checkpoints import ModelCard, save_model
    from mfuser_ros.checkpoints.store import build
    from mfuser_ros.network.config import SMALL

    torch.manual_seed(0)
    names = vocabulary.load().names
    network = build(SMALL, names)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "mask_embed" in name or "mask_feature" in name:
                weight.mul_(4)  # untrained masks are flat: this gives several classes
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    card = ModelCard(
        name="random",
        architecture=SMALL,
        vocabulary=names,
        threshold=0.0,
        temperature=1.0,
        licence="none",
        provenance="random weights of this test",
    )
    save_model(network, card, path)
    return path


@pytest.fixture(scope="module")
def out(weights, tmp_path_factory):
    """Results of one run on the first frames of the packed drive, made over those of an earlier run."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    (folder / "masks").mkdir(parents=True)
    (folder / "masks" / "metadata.yaml").write_text("of an earlier run")
    (folder / "overlay.mp4").write_text("of an earlier run")
    done = run_demo(DRIVE, "--out", folder, "--model", weights, "--device", "cpu", "--frames", FRAMES)
    assert done.returncode == 0, done.stderr + done.stdout
    (folder / "stdout.txt").write_text(done.stdout)
    (folder / "stderr.txt").write_text(done.stderr)
    return folder


def test_demo_prints_progress_and_where_the_results_are(out):
    results = (out / "stdout.txt").read_text().splitlines()
    assert results == [str(out / name) for name in ("overlay.mp4", "masks", "summary.html")]
    progress = (out / "stderr.txt").read_text().splitlines()
    assert any(re.fullmatch(rf"frames: {FRAMES}/{FRAMES} \d+\.\d/s", line) for line in progress)


def test_film_shows_every_frame_at_the_rate_of_the_recording(out):
    with av.open(str(out / "overlay.mp4")) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert float(film.streams.video[0].average_rate) == pytest.approx(1 / 0.12)
    assert len(pictures) == FRAMES
    assert {picture.shape for picture in pictures} == {(SIZE[1], SIZE[0], 3)}


def test_masks_are_those_of_the_python_api_with_stamp_and_frame_of_the_pictures(out, weights):
    with BagReader(DRIVE) as bag:
        pictures = [frame for frame, _ in zip(bag.frames(bag.image_topic()), range(FRAMES), strict=False)]
    with AnyReader([out / "masks"]) as reader:  # the library alone
        messages = {
            topic: [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if c.topic == topic]
            for topic in reader.topics
        }
    masks = messages["/mfuser/front/mask"]
    segmenter = mfuser_ros.load(str(weights), device="cpu")
    assert len(masks) == FRAMES
    for mask, picture in zip(masks, pictures, strict=True):
        assert mask.header.stamp.sec * 10**9 + mask.header.stamp.nanosec == picture.stamp_ns
        assert mask.header.frame_id == picture.frame_id == "front_camera_optical_frame"
        assert (mask.height, mask.width, mask.step, mask.encoding) == (720, 1280, 1280, "mono8")
        expected = segmenter(to_rgb(picture.message)).mask
        assert np.mean(mask.data.reshape(720, 1280) == expected) > 0.999  # sums in another order, other threads
    (class_map,) = messages["/mfuser/class_map"]
    assert json.loads(class_map.data)["classes"][0]["name"] == "road"


def test_page_has_charts_and_says_that_the_pose_is_an_estimate(out):
    page = (out / "summary.html").read_text(encoding="utf-8")
    for chart in ("chart-shares", "chart-latency", "chart-drivable"):
        assert f'id="{chart}"' in page
    assert page.count("data:image/jpeg;base64,") == FRAMES
    assert "camera&#39;s pose is an estimate from lane lines, not a calibration" in page
    height = float(re.search(r"calibration: (\d\.\d\d) m above the road", page).group(1))
    assert 1.0 < height < 1.6  # behind the windscreen of a saloon car


def test_bag_that_is_none_is_told_before_anything_starts(tmp_path):
    done = CliRunner().invoke(app, ["demo", str(tmp_path / "gone"), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, InputError)  # `main` makes a line and exit code 2 of it
    assert str(done.exception) == f"{tmp_path / 'gone'}: no such file or folder: give a bag"
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def bare_bag(tmp_path_factory):
    """Two raw pictures without a calibration."""
    path = tmp_path_factory.mktemp("bare") / "bag"
    rng = np.random.default_rng(0)
    with BagWriter(path) as bag:
        for index in range(2):
            picture = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
            bag.image("/left/image", picture, encoding="bgr8", stamp_ns=10**18 + index * 10**8, frame_id="left")
    return path


def test_missing_weights_are_told_by_the_node_and_exit_2(tmp_path, bare_bag):
    missing = tmp_path / "none.safetensors"
    done = run_demo(bare_bag, "--out", tmp_path / "out", "--model", missing, "--device", "cpu")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"mfuser: the node is not ready: configure failed: {missing}")


def test_bag_without_calibration_is_played_without_a_grid(tmp_path, bare_bag, weights):
    done = run_demo(bare_bag, "--out", tmp_path / "out", "--model", weights, "--device", "cpu", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    page = (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")
    assert "No drivable area: the bag has no camera_info." in page
    assert "chart-drivable" not in page


def test_pose_parameter_turns_back_into_the_rotation():
    pitch, yaw = np.radians(5.0), np.radians(10.0)
    forward = [np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)]
    right = [np.sin(yaw), -np.cos(yaw), 0.0]
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = 1.0, 2.0, 3.0

    x, y, z, *angles = pose_parameter(pose)

    assert (x, y, z) == (1.0, 2.0, 3.0)
    roll, tilt, turn = angles
    np.testing.assert_allclose(np.degrees(angles), [-95.0, 0.0, -80.0], atol=1e-9)  # level: -90, 0, -90
    Rx = [[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]]
    Ry = [[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]]
    Rz = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    np.testing.assert_allclose(np.array(Rz) @ Ry @ Rx, pose[:3, :3], atol=1e-12)
