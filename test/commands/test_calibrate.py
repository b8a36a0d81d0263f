"""`mfuser calibrate` on rendered drives, whose pose is known, and on the real one of test/data."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("rosbags")
sys.path.insert(0, str(Path(__file__).parents[1] / "drivable"))

from road_scene import Scene, fine_rays, lens_rays, optical_pose, paint_lanes

from mfuser_ros.bags.calibration import CameraCalibration
from mfuser_ros.bags.write import BagWriter
from mfuser_ros.commands.app import app
from mfuser_ros.errors import CalibrationError, InputError

K = np.array([[300.0, 0, 199.5], [0, 300, 119.5], [0, 0, 1]])
STREET = Scene(half_width=5.5, kerb_height=0.12)
TRUE = {"z": 1.5, "pitch_deg": 4.0}
AS_STATED = "1.2 0.1 1.5 -1.640610 0 -1.570796"  # 4 degrees down: -90 - 4 degrees
LEVEL = "1.2 0.1 1.4 -1.570796 0 -1.570796"
HIGHWAY = Path(__file__).parents[1] / "data" / "highway"


def run(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


@pytest.fixture(scope="module")
def rays():
    return lens_rays(400, 240, K), fine_rays(400, 240, K)


def record(path, rays, *, info=True, pictures=True, masks=True, paint=True, scene=STREET):
    """Five frames, 4 m apart, of a lane of 3.5 m."""
    calibration = CameraCalibration(
        400, 240, "plumb_bob", np.zeros(5), K, np.eye(3), np.hstack([K, np.zeros((3, 1))]), "front_optical"
    )
    with BagWriter(path) as writer:
        for step in range(5):
            pose = optical_pose(4.0 * step, 0.1, **TRUE)
            stamp = 10**9 * (1 + step)
            picture = paint_lanes(scene, rays[1], pose, (1.75, -1.75) if paint else ())
            if info:
                writer.camera_info("/front/camera_info", calibration, stamp_ns=stamp, frame_id="front_optical")
            if pictures:
                writer.image("/front/image_raw", picture, encoding="rgb8", stamp_ns=stamp, frame_id="front_optical")
            if masks:
                mask = scene.render(rays[0], pose)
                writer.mask("/front/mask", mask, stamp_ns=stamp, frame_id="front_optical")
    return path


@pytest.fixture(scope="module")
def drive(tmp_path_factory, rays):
    return record(tmp_path_factory.mktemp("bags") / "drive", rays)


def numbers(output: str) -> list[float]:
    (line,) = re.findall(r"^front\.pose: \[(.*)\]$", output, re.M)
    return [float(text) for text in line.split(",")]


def test_pose_as_stated_is_within_the_bound(drive):
    done = run(drive, "--mask-topic", "/front/mask", "--pose", AS_STATED, "--bound", 0.5)

    assert done.exit_code == 0, done.output
    assert "within the bound: pitch " in done.output
    assert "from lane lines in 5 of 5 frames" in done.output
    x, y, z, roll, pitch, yaw = numbers(done.output)
    assert (x, y) == (1.2, 0.1)  # the road says nothing of them
    assert z == pytest.approx(1.5, abs=0.05)
    np.testing.assert_allclose(np.degrees([roll, pitch, yaw]), [-94, 0, -90], atol=0.3)


def test_drifted_pose_ends_with_exit_code_1_and_the_line_to_paste(drive):
    done = run(drive, "--mask-topic", "/front/mask", "--pose", LEVEL, "--bound", 0.5)

    assert done.exit_code == 1
    assert re.search(r"beyond the bound: pitch \+(3\.[6-9]|4\.[0-4])\d* degrees, height \+0\.1", done.output)
    assert np.degrees(numbers(done.output)[3]) == pytest.approx(-94, abs=0.3)


def test_wide_bound_lets_the_same_drift_pass(drive):
    done = run(drive, "--mask-topic", "/front/mask", "--pose", LEVEL, "--bound", 6, "--height-bound", 0.5)

    assert done.exit_code == 0


def test_masks_without_pictures_give_the_pitch_from_the_roads_edges(tmp_path, rays):
    bag = record(tmp_path / "masks", rays, pictures=False)

    done = run(bag, "--pose", AS_STATED)  # the only topic in /mask is taken

    assert done.exit_code == 0, done.output
    assert "from road edges in 5 of 5 frames" in done.output
    assert "height: cannot tell" in done.output
    assert numbers(done.output)[2] == 1.5  # as stated


def test_known_road_width_gives_the_height_without_lines(tmp_path, rays):
    bag = record(tmp_path / "masks", rays, pictures=False)

    done = run(bag, "--mask-topic", "/front/mask", "--road-width", 11, "--quiet")

    assert done.output.count("\n") == 1
    assert numbers(done.output)[2] == pytest.approx(1.5, abs=0.06)


def test_no_stated_pose_is_judged_by_nothing(drive):
    done = run(drive, "--mask-topic", "/front/mask", "--bound", 0)

    assert done.exit_code == 0
    assert "no drift is judged" in done.output


def test_road_that_tells_nothing_is_said_so(tmp_path, rays):
    bag = record(tmp_path / "field", rays, paint=False, scene=Scene(half_width=200))

    done = run(bag, "--mask-topic", "/front/mask")

    assert isinstance(done.exception, CalibrationError)  # the command's own main makes it one line and exit code 2
    assert "cannot tell: fewer than 3 of 5 frames" in str(done.exception)


def test_model_runs_although_there_are_masks_if_it_is_asked_for(drive, random_model):
    done = run(drive, "--mask-topic", "", "--topic", "/front/image_raw", "--model", random_model, "--frames", 3)

    assert isinstance(done.exception, CalibrationError)  # a random network sees no road
    assert "cannot tell" in str(done.exception)


def test_bag_without_camera_info_is_refused(tmp_path, rays):
    bag = record(tmp_path / "bare", rays, info=False, masks=False)

    done = run(bag)

    assert isinstance(done.exception, InputError)
    assert "no camera_info beside /front/image_raw" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pose", "1 2 3"), "has 3 numbers: give six"),
        (("--pose", "a b c d e f"), "give six numbers"),
        (("--mask-topic", "/front/image_raw"), "is rgb8, not mono8"),
        (("--mask-topic", "/nowhere"), "no picture topic /nowhere"),
    ],
)
def test_argument_that_cannot_work_is_named(drive, arguments, words):
    done = run(drive, *(arguments if "--mask-topic" in arguments else ("--mask-topic", "/front/mask", *arguments)))

    assert isinstance(done.exception, InputError)
    assert words in str(done.exception)


def test_model_finds_the_lane_of_the_real_drive():
    if not HIGHWAY.exists():
        pytest.skip(f"{HIGHWAY} is not in this checkout")
    done = run(HIGHWAY, "--frames", 5, "--lane-width", 3.7, "--device", "cpu")

    assert done.exit_code == 0, done.output
    assert "from lane lines" in done.output
    assert 1.1 < numbers(done.output)[2] < 1.5  # behind a car's windscreen
