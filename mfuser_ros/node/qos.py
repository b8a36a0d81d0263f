"""QoS of every topic. Each call makes a new profile: rclpy writes overrides into the object that it is given."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions


def picture(reliability: str = "best_effort") -> QoSProfile:
    """The newest picture only; `reliability` is best_effort or reliable."""
    return _profile(ReliabilityPolicy[reliability.upper()], 1)


def camera_info() -> QoSProfile:
    """As camera drivers publish it."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, 5)


def odometry() -> QoSProfile:
    """Every message of the last half second at 100 Hz, whoever publishes it."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, 50)


def results() -> QoSProfile:
    """Masks and what goes with them: a reliable writer serves readers of both kinds."""
    return _profile(ReliabilityPolicy.RELIABLE, 2)


def latched() -> QoSProfile:
    """For readers that come late."""
    return _profile(ReliabilityPolicy.RELIABLE, 1, DurabilityPolicy.TRANSIENT_LOCAL)


def grid(*, transient_local: bool = True) -> QoSProfile:
    """The newest grid, latched or not."""
    return latched() if transient_local else _profile(ReliabilityPolicy.RELIABLE, 1)


def diagnostics() -> QoSProfile:
    """As diagnostic aggregators subscribe."""
    return _profile(ReliabilityPolicy.RELIABLE, 10)


PROFILES = {
    "picture": picture,
    "camera_info": camera_info,
    "odometry": odometry,
    "results": results,
    "latched": latched,
    "grid": grid,
    "diagnostics": diagnostics,
}
"""What makes the profile that a row of `mfuser_ros.node.interface` names."""


def overridable() -> QoSOverridingOptions:
    """Lets parameters `qos_overrides.<topic>.…` change history, depth and reliability."""
    return QoSOverridingOptions.with_default_policies()


def _profile(
    reliability: ReliabilityPolicy, depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE
) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)
