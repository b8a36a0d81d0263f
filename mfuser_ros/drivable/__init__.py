"""From segmented pictures to the ground that is free to drive on: arrays in, arrays out."""

from mfuser_ros.drivable.area import DrivableArea, DrivableResult
from mfuser_ros.drivable.camera import CameraModel
from mfuser_ros.drivable.grid import GridSpec
from mfuser_ros.drivable.view import View

__all__ = ["CameraModel", "DrivableArea", "DrivableResult", "GridSpec", "View"]
