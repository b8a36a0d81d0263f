"""Publishes the drivable area: grid, boundary and contacts."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from mfuser_ros.drivable import DrivableArea, GridSpec, View
from mfuser_ros.node import interface, qos
from mfuser_ros.node.outgoing import UNKNOWN_CELL, GridMessage, boundary_message, contacts_message
from mfuser_ros.node.settings import Settings
from mfuser_ros.node.topics import Topics
from mfuser_ros.vocabulary import Vocabulary


class DrivableOutput:
    """The topics `~/drivable_area/…` of a configured node.

    Raises:
        ConfigurationError: a grid that cannot be.
    """

    def __init__(self, topics: Topics, vocabulary: Vocabulary, settings: Settings) -> None:
        self._vocabulary = vocabulary
        self._spec = GridSpec(
            settings.grid_x_min,
            settings.grid_x_max,
            settings.grid_y_min,
            settings.grid_y_max,
            settings.grid_resolution,
        )
        self._frame = settings.grid_frame
        self._area: DrivableArea | None = None
        self._area_of: tuple[object, ...] = ()
        self._beyond: np.ndarray | None = None
        self._beyond_of = math.nan
        self._lock = threading.Lock()  # pictures come from the worker, retractions from the executor too
        self._seen: dict[str, tuple[Time, View]] = {}
        self._message = GridMessage(self._spec, self._frame)
        self._last_stamp: Time | None = None
        self._told_by: set[str] = set()  # cameras that the last grid knows something from
        self._told_ns = 0
        self._grid = topics.publisher(interface.GRID, qos.grid(transient_local=settings.grid_transient_local))
        self._boundary = topics.publisher(interface.BOUNDARY)
        self._contacts = topics.publisher(interface.CONTACTS)

    def reset(self) -> None:
        """Forget what was seen: time has jumped, or the node was inactive."""
        with self._lock:
            self._seen = {}
            if self._area is not None:
                self._area.forget()

    def update(
        self, camera: str, view: View, stamp: Time, settings: Settings, T_odom_vehicle: np.ndarray | None = None
    ) -> None:
        """Publish what a picture shows, together with pictures of other cameras that were taken at the same instant.

        Views of different instants are laid over each other by `grid.decay` and odometry alone: the vehicle has moved.

        Args:
            camera: that took the picture.
            view: of the picture.
            stamp: of the picture.
            settings: of the node.
            T_odom_vehicle: (4, 4) pose of the vehicle at that time, metres; None: not known.
        """
        with self._lock:
            self._seen[camera] = (stamp, view)
            views = {name: seen for name, (taken, seen) in self._seen.items() if taken == stamp}
            stamp_s = stamp.sec + stamp.nanosec * 1e-9
            result = self._area_for(settings).update(
                list(views.values()), stamp_s=stamp_s, T_odom_vehicle=T_odom_vehicle
            )
            cells = self._message.cells(stamp)
            cells[:] = result.occupancy
            cells[self._beyond_range(settings.ground_max_range)] = UNKNOWN_CELL
            self._publish_grid(stamp, told_by=set(views))
        header = Header(stamp=stamp, frame_id=self._frame)
        boundary = _shortened(result.boundary, settings.ground_max_range)
        if len(boundary) >= 3:
            self._boundary.publish(boundary_message(boundary, settings.ground_z, header))
        within = np.hypot(result.contacts[:, 0], result.contacts[:, 1]) <= settings.ground_max_range
        height = settings.ground_z + settings.contacts_height
        self._contacts.publish(contacts_message(result.contacts[within], height, header))

    def publish_unknown(self, stamp: Time) -> None:
        """Publish a grid that knows nothing, for a picture that could not be used."""
        with self._lock:
            self._publish_unknown(stamp)

    def retract(self, now_ns: int, *, of: str | None = None) -> None:
        """Publish one grid that knows nothing if the last one, which may be latched, still claims to know something.

        The stamp is that of the clock, but never that of a picture.

        Args:
            now_ns: the node's clock.
            of: only if this camera has told what the last grid says.
        """
        with self._lock:
            if not self._told_by or (of is not None and of not in self._told_by):
                return
            sec, nanosec = divmod(now_ns, 1_000_000_000)
            stamp = Time(sec=sec, nanosec=nanosec)
            if stamp == self._last_stamp:  # a stopped clock
                stamp.nanosec = nanosec - 1 if nanosec else 1
            self._publish_unknown(stamp)

    def is_older_than(self, age_ns: float) -> bool:
        """Whether the last grid that knows something was published longer ago than this; `age_ns` in nanoseconds."""
        return time.monotonic_ns() - self._told_ns > age_ns

    def _publish_unknown(self, stamp: Time) -> None:
        self._message.cells(stamp)[:] = UNKNOWN_CELL
        self._publish_grid(stamp, told_by=set())

    def _publish_grid(self, stamp: Time, *, told_by: set[str]) -> None:
        self._last_stamp = stamp
        self._told_by = told_by
        if told_by:
            self._told_ns = time.monotonic_ns()
        self._grid.publish(self._message.message)

    def _area_for(self, settings: Settings) -> DrivableArea:
        wanted = (settings.free_roles, settings.grid_min_confidence)
        if self._area is None or wanted != self._area_of:
            self._area = DrivableArea(self._spec, self._vocabulary, *wanted, decay_s=settings.grid_decay)
            self._area_of = wanted
        return self._area

    def _beyond_range(self, max_range: float) -> np.ndarray:
        """(rows, cols) bool: cells of which a part is farther than `max_range` from the origin."""
        if self._beyond is None or max_range != self._beyond_of:
            spec = self._spec
            x = spec.x_min + spec.resolution * np.arange(spec.cols + 1)
            y = spec.y_min + spec.resolution * np.arange(spec.rows + 1)
            farthest_x = np.maximum(abs(x[:-1]), abs(x[1:]))
            farthest_y = np.maximum(abs(y[:-1]), abs(y[1:]))
            self._beyond = np.hypot(farthest_x[None, :], farthest_y[:, None]) > max_range
            self._beyond_of = max_range
        return self._beyond


def _shortened(boundary: np.ndarray, max_range: float) -> np.ndarray:
    """The outline (M, 2) drawn in to `max_range` along the rays from the vehicle; nothing if none of it is nearer."""
    distance = np.hypot(boundary[:, 0], boundary[:, 1])
    if not (distance < max_range).any():
        return boundary[:0]
    return np.asarray(boundary * np.minimum(1.0, max_range / np.maximum(distance, 1e-9))[:, None])
