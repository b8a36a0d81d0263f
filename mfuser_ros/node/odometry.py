"""Where the vehicle was at a picture's stamp, from nav_msgs/Odometry."""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import Any

import cv2
import numpy as np

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.node.calibration import quaternion_matrix
from mfuser_ros.node.health import Fault, Level
from mfuser_ros.node.stamps import SECOND_NS, stamp_ns

KEPT = 500
MAX_GAP_NS = SECOND_NS // 5
"""Longest time between two messages that is bridged by a straight line."""

MAX_AHEAD_NS = SECOND_NS // 10
"""Longest time that the last motion is thought to go on after the last message."""


class Odometry:
    """The last messages, safe to use from two threads.

    Args:
        frame: of the grid, which the messages must be about.
    """

    def __init__(self, frame: str) -> None:
        self._frame = frame.removeprefix("/")
        self._lock = threading.Lock()
        self._stamps: list[int] = []
        self._poses: list[np.ndarray] = []
        self._fault = Fault(Level.WARN, "odometry", "nothing has come: check odometry_topic; the grid has no memory")

    def clear(self) -> None:
        """Forget all: time has jumped backwards, or the node was inactive."""
        with self._lock:
            self._stamps, self._poses = [], []

    def add(self, message: Any) -> None:  # Any: nav_msgs/Odometry
        """Take in one message; one that is out of order, of another frame or no pose is left out."""
        stamp, child = stamp_ns(message.header.stamp), message.child_frame_id.removeprefix("/")
        if child not in ("", self._frame):
            text = f"odometry is of '{child}', the grid of '{self._frame}': publish that of the grid's frame"
            self._fault = Fault(Level.WARN, "odometry", text)
            return
        moved, turned = message.pose.pose.position, message.pose.pose.orientation
        T = np.eye(4)
        T[:3, 3] = moved.x, moved.y, moved.z
        try:
            T[:3, :3] = quaternion_matrix(turned.x, turned.y, turned.z, turned.w)
        except ConfigurationError as error:
            self._fault = Fault(Level.WARN, "odometry", str(error))
            return
        with self._lock:
            if not stamp or not np.isfinite(T).all() or (self._stamps and stamp <= self._stamps[-1]):
                return
            self._stamps.append(stamp)
            self._poses.append(T)
            if len(self._stamps) > KEPT:
                del self._stamps[: KEPT // 2], self._poses[: KEPT // 2]

    def pose_at(self, stamp: int | None) -> np.ndarray | Fault:
        """(4, 4) transform that maps the vehicle's frame at a time to the odometry's frame, metres; or why not.

        Between two messages the motion is taken as a straight line with an even turn, and so for a tenth of a second
        after the last one.

        Args:
            stamp: of a picture, nanoseconds.
        """
        with self._lock:
            stamps, poses = self._stamps, self._poses
            if not stamps:
                return self._fault
            if not stamp:
                return Fault(Level.WARN, "odometry", "the picture has no stamp: the grid has no memory")
            after = bisect_left(stamps, stamp)
            if after < len(stamps) and stamps[after] == stamp:
                return poses[after]
            one, other = (after - 1, after) if after < len(stamps) else (after - 2, after - 1)
            ahead = after == len(stamps)
            if one < 0 or stamps[other] - stamps[one] > MAX_GAP_NS or (ahead and stamp - stamps[-1] > MAX_AHEAD_NS):
                newest_s = (stamps[-1] - stamp) / SECOND_NS
                text = f"no motion is known at the picture's stamp, the newest is {newest_s:+.3f} s from it"
                return Fault(Level.WARN, "odometry", text)
            share = (stamp - stamps[one]) / (stamps[other] - stamps[one])
            return _between(poses[one], poses[other], share)


def _between(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """The pose at `share` of the way from one to the other; above 1 it lies beyond the other."""
    turn, _ = cv2.Rodrigues(one[:3, :3].T @ other[:3, :3])
    T = np.eye(4)
    T[:3, :3] = one[:3, :3] @ cv2.Rodrigues(turn * share)[0]
    T[:3, 3] = one[:3, 3] + share * (other[:3, 3] - one[:3, 3])
    return T
