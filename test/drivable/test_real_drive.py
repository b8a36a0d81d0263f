"""The highway drive of test/data, whose camera was never measured: the estimate must be plausible for a car."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mfuser_ros.drivable import CameraModel
from mfuser_ros.drivable.ground import MountedCamera
from mfuser_ros.drivable.lanes import estimate_lane_pose

BAG = Path(__file__).parents[1] / "data" / "highway"
CAMERA = CameraModel(
    1280,
    720,
    [1159.135, 0, 669.589, 0, 1154.455, 388.058, 0, 0, 1],
    (-0.25775, 0.04533, -0.000725, 0.000174, -0.11452),
)


def pictures() -> list[np.ndarray]:
    highlevel = pytest.importorskip("rosbags.highlevel")
    if not BAG.exists():
        pytest.skip(f"{BAG} is not in this checkout")
    found = []
    with highlevel.AnyReader([BAG]) as reader:
        cameras = [c for c in reader.connections if c.msgtype == "sensor_msgs/msg/CompressedImage"]
        for index, (connection, _, raw) in enumerate(reader.messages(cameras)):
            if index % 8 == 0:
                jpeg = reader.deserialize(raw, connection.msgtype).data
                found.append(cv2.cvtColor(cv2.imdecode(np.asarray(jpeg), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
    return found


def test_freeway_lane_puts_the_camera_behind_a_cars_windscreen():
    frames = pictures()

    pose = estimate_lane_pose(frames, CAMERA, lane_width_m=3.7)

    assert pose.frames >= 0.7 * len(frames)
    assert 1.1 < pose.height_m < 1.5
    assert pose.height_spread_m < 0.05
    assert abs(np.degrees(pose.pitch_rad)) < 3
    # By eye in the picture: the road ends in row 430, give or take 12
    horizon = MountedCamera(CAMERA, pose.T_vehicle_camera).project(np.array([1e4, 0.0]))
    assert horizon[1] == pytest.approx(430, abs=12)
