"""The QoS profiles that a bag says were offered, so that `ros2 bag play` offers the same again (spec of rosbag2)."""

from __future__ import annotations

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

UNLIMITED = QosTime(9223372036, 854775807)
"""What rosbag2 writes where no deadline, lifespan or lease was set."""


def _profile(depth: int, *, reliability: QosReliability, durability: QosDurability) -> Qos:
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=durability,
        deadline=UNLIMITED,
        lifespan=UNLIMITED,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=UNLIMITED,
        avoid_ros_namespace_conventions=False,
    )


SENSOR = _profile(5, reliability=QosReliability.BEST_EFFORT, durability=QosDurability.VOLATILE)
"""A camera driver: the freshest picture, lost ones stay lost."""

RELIABLE = _profile(2, reliability=QosReliability.RELIABLE, durability=QosDurability.VOLATILE)
"""A result: a reliable writer serves both kinds of reader."""

LATCHED = _profile(1, reliability=QosReliability.RELIABLE, durability=QosDurability.TRANSIENT_LOCAL)
"""Stated once, handed to late joiners."""
