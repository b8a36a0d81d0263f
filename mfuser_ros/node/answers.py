"""Publishes all that one picture gives: mask, confidence, overlay, camera_info, drivable area."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from rclpy.node import Node

from mfuser_ros.node.camera import view_of
from mfuser_ros.node.drivable_output import DrivableOutput
from mfuser_ros.node.health import Fault, Level
from mfuser_ros.node.intake import Work
from mfuser_ros.node.lines import one_line
from mfuser_ros.node.odometry import Odometry
from mfuser_ros.node.pose_watch import PoseWatch
from mfuser_ros.node.stamps import SECOND_NS

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmentation  # torch is loaded when the node is configured


class Published(NamedTuple):
    """A picture whose mask is out."""

    work: Work
    result: Segmentation | None  # None where the network failed
    unknown_share: float


class Answers:
    """What goes out for the pictures of all cameras.

    Args:
        node: gives the clock.
        drivable: publishes the drivable area.
        odometry: motion of the vehicle; None: unknown.
        pose_watch: checks the poses of the cameras.
    """

    def __init__(self, node: Node, drivable: DrivableOutput, odometry: Odometry | None, pose_watch: PoseWatch) -> None:
        self._node = node
        self._drivable = drivable
        self._odometry = odometry
        self._pose_watch = pose_watch

    def publish_mask(self, work: Work, answer: Segmentation | Fault) -> Published:
        """Publish mask, confidence and camera_info of one picture. A fault gives a mask that knows nothing."""
        camera, header = work.camera, work.header
        result = self._result(work, answer)
        unknown_share = 1.0
        if result is None:
            camera.output.publish_unknown(header, work.size)
        else:
            unknown_share = camera.output.publish_result(header, result)
        camera.gate.published(work.stamp_ns, self._now_ns(), work.generation)
        camera.publish_camera_info(header, work.size)
        return Published(work, result, unknown_share)

    def publish_ground(self, published: Published) -> None:
        """Publish what follows from a mask: the drivable area and the overlay."""
        work, result = published.work, published.result
        if work.settings.grid_enabled:
            self._publish_drivable(work, result)
        else:
            self._drivable.retract(self._now_ns())
        if result is not None:
            work.camera.output.publish_overlay(work.header, result, time.monotonic_ns(), work.settings)

    def _result(self, work: Work, answer: Segmentation | Fault) -> Segmentation | None:
        if isinstance(answer, Fault):
            work.camera.tell_condition(answer)
            return None
        work.camera.health.clear_condition("inference")
        region = work.camera.settings.roi
        return answer if region is None else region.spread(answer, work.picture)

    def _publish_drivable(self, work: Work, result: Segmentation | None) -> None:
        camera, settings, stamp = work.camera, work.settings, work.header.stamp
        geometry = camera.geometry(work.header, work.stamp_ns, work.size, settings)
        if geometry is None:
            if not camera.is_calibrated or self._drivable.is_older_than(settings.diagnostics_stale_after * SECOND_NS):
                self._drivable.retract(self._now_ns(), of=camera.settings.name)
            return
        if result is None:
            self._drivable.publish_unknown(stamp)
            return
        try:
            T_odom_vehicle = None
            if self._odometry is not None:
                found = self._odometry.pose_at(work.stamp_ns)
                if isinstance(found, Fault):
                    camera.tell_condition(found)
                else:
                    camera.health.clear_condition("odometry")
                    T_odom_vehicle = found
            view = view_of(result, geometry, camera.settings.roi)
            self._drivable.update(camera.settings.name, view, stamp, settings, T_odom_vehicle)
            self._pose_watch.offer(camera, work.seen, view, settings)
        except Exception as error:  # the mask is out already, and a grid that may be wrong must not stay
            camera.tell_condition(Fault(Level.ERROR, "drivable_area", one_line(error)))
            self._drivable.publish_unknown(stamp)
        else:
            camera.health.clear_condition("drivable_area")

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
