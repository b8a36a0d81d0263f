"""Pitch and height of a camera from rendered roads: whether a wrong pose is found out, and a right one left alone."""

import numpy as np
import pytest
from road_scene import CAR, ROAD, Box, Scene, fine_rays, lens_rays, optical_pose, paint_lanes

from mfuser_ros import vocabulary
from mfuser_ros.drivable import CameraModel
from mfuser_ros.drivable.drift import RoadWatch
from mfuser_ros.errors import CalibrationError, ConfigurationError, InputError

K = np.array([[600.0, 0, 359.5], [0, 600, 199.5], [0, 0, 1]])
D = (-0.25, 0.05, 0.0005, -0.0005, 0.0)
CAMERA = CameraModel(720, 400, K, D)
BOUNDS = {"pitch_bound_rad": np.radians(0.5), "height_bound_m": 0.1}
STREET = Scene((Box(25, -3.6, 4.5, 1.8, 1.5),), half_width=5.5, kerb_height=0.12)


@pytest.fixture(scope="module")
def words():
    return vocabulary.load(__file__.split("test/drivable", maxsplit=1)[0] + "config/vocabulary.yaml")


@pytest.fixture(scope="module")
def rays():
    return lens_rays(720, 400, K, D), fine_rays(720, 400, K, D)


def drive(
    watch: RoadWatch, rays, true_pose: dict[str, float], *, scene: Scene = STREET, paint=True, frames: int = 6
) -> None:
    """Look every 3 m; a lane of 3.5 m between a solid and a dashed line."""
    for step in range(frames):
        pose = optical_pose(3.0 * step, 0.1, true_pose["z"], **{k: v for k, v in true_pose.items() if k != "z"})
        mask = scene.render(rays[0], pose)
        picture = None
        if paint:
            picture = paint_lanes(scene, rays[1], pose, (1.75, 5.25), dashed=(-1.75, -5.25))
            picture[mask == CAR] = 60
        watch.look(mask, picture)


@pytest.mark.parametrize("roll_deg", [0.0, 3.0])
@pytest.mark.parametrize("evidence", ["lane lines", "road edges"])
def test_drifted_camera_is_found_out(words, rays, evidence, roll_deg):
    stated = optical_pose(1.5, 0.2, 1.4, pitch_deg=3, yaw_deg=1, roll_deg=roll_deg)
    watch = RoadWatch(CAMERA, stated, words, lane_width_m=3.5, road_width_m=11.0)
    drive(
        watch,
        rays,
        {"z": 1.6, "pitch_deg": 4.5, "yaw_deg": 1.0, "roll_deg": roll_deg},
        paint=evidence == "lane lines",
    )

    found, drift = watch.estimate(), watch.drift(**BOUNDS)

    assert found.evidence == evidence
    assert np.degrees(found.pitch_rad) == pytest.approx(4.5, abs=0.2)
    assert found.height_m == pytest.approx(1.6, rel=0.03)
    expected = optical_pose(1.5, 0.2, 1.6, pitch_deg=4.5, yaw_deg=1, roll_deg=roll_deg)
    np.testing.assert_allclose(found.T_vehicle_camera, expected, atol=0.05)
    assert drift.beyond
    assert np.degrees(drift.pitch_rad) == pytest.approx(1.5, abs=0.2)
    assert drift.height_m == pytest.approx(0.2, abs=0.05)
    assert f"from {evidence} in {found.frames} of 6 frames" in drift.text


@pytest.mark.parametrize("paint", [True, False])
def test_camera_that_looks_as_stated_has_not_drifted(words, rays, paint):
    stated = {"z": 1.4, "pitch_deg": 3.0, "yaw_deg": -2.0}
    watch = RoadWatch(CAMERA, optical_pose(**stated), words, lane_width_m=3.5, road_width_m=11.0)
    drive(watch, rays, stated, paint=paint)

    drift = watch.drift(**BOUNDS)

    assert not drift.beyond
    assert abs(np.degrees(drift.pitch_rad)) < 0.2
    assert abs(drift.height_m) < 0.05


def test_edges_without_a_known_width_tell_the_pitch_only(words, rays):
    watch = RoadWatch(CAMERA, optical_pose(z=1.4, pitch_deg=3), words)
    drive(watch, rays, {"z": 1.4, "pitch_deg": 1.0}, paint=False)

    found, drift = watch.estimate(), watch.drift(**BOUNDS)

    assert found.height_m is None
    assert drift.height_m is None
    assert "height" not in drift.text
    assert found.T_vehicle_camera[2, 3] == 1.4
    assert np.degrees(drift.pitch_rad) == pytest.approx(-2.0, abs=0.2)
    assert drift.beyond


def test_road_without_lines_or_edges_tells_nothing(words, rays):
    watch = RoadWatch(CAMERA, optical_pose(z=1.4, pitch_deg=3), words)
    drive(watch, rays, {"z": 1.4, "pitch_deg": 3.0}, scene=Scene(half_width=100), paint=False)

    assert watch.looks == 6
    assert watch.estimate() is None
    assert watch.drift(**BOUNDS) is None


def test_edge_at_a_vehicle_is_no_edge_of_the_road(words, rays):
    watch = RoadWatch(CAMERA, optical_pose(z=1.4, pitch_deg=3), words)
    for _ in range(4):
        mask = Scene(half_width=4.0).render(rays[0], optical_pose(z=1.4, pitch_deg=3))
        mask[(mask != ROAD) & (np.arange(400)[:, None] > 190)] = CAR
        watch.look(mask)

    assert watch.estimate() is None


def test_old_looks_are_dropped(words, rays):
    watch = RoadWatch(CAMERA, optical_pose(z=1.4, pitch_deg=3), words, looks=4)
    drive(watch, rays, {"z": 1.4, "pitch_deg": 3.0}, frames=4)
    drive(watch, rays, {"z": 1.4, "pitch_deg": 5.0}, frames=4)

    assert watch.looks == 4
    assert np.degrees(watch.estimate().pitch_rad) == pytest.approx(5.0, abs=0.2)
    watch.forget()
    assert watch.estimate() is None


def test_width_of_no_road_is_refused(words):
    with pytest.raises(ConfigurationError, match="lane width 350"):
        RoadWatch(CAMERA, optical_pose(), words, lane_width_m=350)


def test_pose_below_the_ground_is_refused(words):
    with pytest.raises(CalibrationError, match="above the ground"):
        RoadWatch(CAMERA, optical_pose(z=-1), words)


def test_mask_of_another_size_is_refused(words):
    with pytest.raises(InputError, match=r"mask is uint8 \(480, 640\)"):
        RoadWatch(CAMERA, optical_pose(), words).look(np.zeros((480, 640), np.uint8))
