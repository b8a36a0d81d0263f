"""Bags of ROS 2 without ROS: read, write, make (rosbags; no rclpy, no torch)."""

from mfuser_ros.bags.calibration import CameraCalibration, load_calibration
from mfuser_ros.bags.make import Shot, make_bag
from mfuser_ros.bags.read import BagReader, Frame, Topic
from mfuser_ros.bags.recording import Recording
from mfuser_ros.bags.write import BagWriter

__all__ = [
    "BagReader",
    "BagWriter",
    "CameraCalibration",
    "Frame",
    "Recording",
    "Shot",
    "Topic",
    "load_calibration",
    "make_bag",
]
