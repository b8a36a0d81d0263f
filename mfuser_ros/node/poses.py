"""Where a camera is: from TF where tf2_ros is installed, from a parameter otherwise."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.time import Time

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.node.calibration import check_pose, pose_matrix, quaternion_matrix
from mfuser_ros.node.health import Fault, Level
from mfuser_ros.node.settings import CameraSettings, Settings

try:
    import tf2_ros
except ImportError:
    tf2_ros = None

TRY_AGAIN_S = 0.005
POSE_FAULTS = ("no_pose", "pose", "tf")
"""Kinds of the faults that `Poses.of` returns."""


class Poses:
    """Poses of cameras in the frame of the grid.

    `pose_source` auto asks TF for a camera whose frame it knows, and takes `<cam>.pose` for the others.

    Args:
        node: hears /tf and /tf_static while the poses are in use.
        settings: of the node.

    Raises:
        ConfigurationError: TF is asked for and tf2_ros is not installed.
    """

    def __init__(self, node: Node, settings: Settings) -> None:
        if settings.pose_source == "tf" and tf2_ros is None:
            raise ConfigurationError(
                "pose_source is tf, and tf2_ros cannot be imported: source a ROS 2 installation, or give <cam>.pose"
            )
        self._node = node
        self._only_tf = settings.pose_source == "tf"
        self._frame = settings.grid_frame.removeprefix("/")
        self._buffer: Any = None if tf2_ros is None or settings.pose_source == "parameter" else tf2_ros.Buffer()
        self._listener: Any = None
        self._static: dict[str, np.ndarray] = {}
        self._from_tf: set[str] = set()

    def start(self) -> None:
        """Listen to TF, if that is to be asked.

        The lookups wait in the worker's thread, so the executor's thread is free to feed the buffer.
        """
        if self._buffer is not None and self._listener is None:
            self._listener = tf2_ros.TransformListener(self._buffer, self._node, spin_thread=False)

    def stop(self) -> None:
        """Listen no more, and forget."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.unregister()
        self.clear()

    def clear(self) -> None:
        """Forget all transforms but static ones: time has jumped backwards."""
        self._static = {}
        self._from_tf = set()
        if self._buffer is not None:
            self._buffer.clear()

    def of(
        self, camera: CameraSettings, frame: str, stamp_ns: int | None, *, timeout_s: float, ground_z: float
    ) -> np.ndarray | Fault:
        """Pose of a camera when a picture was taken.

        Args:
            camera: its settings.
            frame: optical frame, from the picture's header.
            stamp_ns: of the picture; None or 0 if it has none, then only a static pose will do.
            timeout_s: longest wait for a transform that is on its way.
            ground_z: height of the ground, metres, to refuse a pose from which no ground is seen.

        Returns:
            (4, 4) transform that maps the optical frame to the grid's frame, metres; or why there is none.
        """
        frame = frame.removeprefix("/")
        known = self._buffer is not None and self._knows(frame)
        if known or self._only_tf:
            try:
                # what TF has never told is not waited for: it would hold up every picture
                found = self._lookup(frame, stamp_ns, timeout_s if known else 0.0)
                if not isinstance(found, Fault):
                    check_pose(found, ground_z=ground_z, name=f"TF of {frame}")
            except ConfigurationError as error:
                return Fault(Level.ERROR, "pose", str(error))
            return found
        if camera.pose is None:
            also = "" if self._buffer is None else f", publish TF of {frame}"
            text = f"the pose of the camera is not known: set {camera.name}.pose{also}, or grid.enabled to false"
            return Fault(Level.WARN, "no_pose", text)
        return pose_matrix(camera.pose)

    def _knows(self, frame: str) -> bool:
        """Whether TF has ever told the frame's pose; from then on it must tell it, or there is none."""
        if frame not in self._from_tf and self._buffer.can_transform(self._frame, frame, Time()):
            self._from_tf.add(frame)
        return frame in self._from_tf

    def _lookup(self, frame: str, stamp_ns: int | None, timeout_s: float) -> np.ndarray | Fault:
        if frame in self._static:
            return self._static[frame]
        end = time.monotonic() + timeout_s  # tf2's own wait is on a clock that may stand still
        while True:
            try:
                latest = self._buffer.lookup_transform(self._frame, frame, Time())
                if latest.header.stamp.sec == 0 and latest.header.stamp.nanosec == 0:
                    self._static[frame] = _matrix(latest)  # tf2 stamps a chain of static transforms with 0
                    return self._static[frame]
                if not stamp_ns:
                    text = f"{frame} moves in {self._frame} and the picture has no stamp: stamp it at the driver"
                    return Fault(Level.WARN, "tf", text)
                return _matrix(self._buffer.lookup_transform(self._frame, frame, Time(nanoseconds=stamp_ns)))
            except tf2_ros.TransformException as error:
                if time.monotonic() >= end:
                    reason = " ".join(str(error).split())
                    text = f"no pose of {frame} in {self._frame} at the picture's stamp ({reason}): check TF"
                    return Fault(Level.WARN, "tf", text)
            threading.Event().wait(TRY_AGAIN_S)


def _matrix(transform: Any) -> np.ndarray:  # Any: geometry_msgs/TransformStamped
    moved, turned = transform.transform.translation, transform.transform.rotation
    T = np.eye(4)
    T[:3, :3] = quaternion_matrix(turned.x, turned.y, turned.z, turned.w)
    T[:3, 3] = moved.x, moved.y, moved.z
    return T
