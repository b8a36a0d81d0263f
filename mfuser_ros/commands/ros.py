"""What the verbs share that play to a node of their own."""

from __future__ import annotations

import os

from mfuser_ros.errors import InputError


def require_ros() -> None:
    """Check that rclpy can be imported.

    Raises:
        InputError: it cannot; the text says what mends it.
    """
    try:
        import rclpy  # noqa: F401, PLC0415  optional: comes with ROS or with the [ros] extra
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"rclpy cannot be imported ({reason}): pip install 'mfuser_ros[ros]', or source a ROS 2 installation"
        ) from error


def choose_domain(asked: int | None) -> int:
    """The domain asked for, that of the environment, or one that other processes hardly use."""
    if asked is not None:
        return asked
    stated = os.environ.get("ROS_DOMAIN_ID", "")
    return int(stated) if stated.isdigit() else 1 + os.getpid() % 100
