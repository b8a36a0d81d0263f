"""MFuser for ROS 2: semantic masks and a drivable area from vehicle cameras."""

__version__ = "0.1.0"
