"""Where a camera is mounted, by the static transforms of a bag."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from mfuser_ros.bags.read import BagReader
from mfuser_ros.errors import ConfigurationError, InputError
from mfuser_ros.node.calibration import quaternion_matrix

TF_MESSAGE = "tf2_msgs/msg/TFMessage"
TOPIC = "/tf_static"


def static_pose(bag: BagReader, base_frame: str, camera_frame: str) -> np.ndarray | None:
    """(4, 4) transform that maps `camera_frame` to `base_frame`, metres; None if the bag's /tf_static joins them not.

    Raises:
        InputError: a transform that is none: a quaternion of no length or a number that is not finite.
    """
    if not any(topic.name == TOPIC and topic.kind == TF_MESSAGE for topic in bag.topics()):
        return None
    parents: dict[str, list[tuple[str, np.ndarray]]] = {}  # both ways: frame -> (other frame, other <- frame)
    for message in bag.messages(TOPIC):
        for entry in message.transforms:
            parent, child = entry.header.frame_id.lstrip("/"), entry.child_frame_id.lstrip("/")
            T = _matrix(entry.transform, f"{bag.path}: {TOPIC} from {parent} to {child}")
            parents.setdefault(child, []).append((parent, T))
            parents.setdefault(parent, []).append((child, np.linalg.inv(T)))
    reached = {camera_frame.lstrip("/"): np.eye(4)}
    waiting = deque(reached)
    while waiting:
        frame = waiting.popleft()
        for other, T in parents.get(frame, []):
            if other not in reached:
                reached[other] = T @ reached[frame]
                waiting.append(other)
    return reached.get(base_frame.lstrip("/"))


def _matrix(transform: Any, name: str) -> np.ndarray:  # Any: rosbags makes the class at run time
    shift, turn = transform.translation, transform.rotation
    T = np.eye(4)
    T[:3, 3] = shift.x, shift.y, shift.z
    try:
        T[:3, :3] = quaternion_matrix(turn.x, turn.y, turn.z, turn.w)
    except ConfigurationError as error:
        raise InputError(f"{name}: {error}, or give --pose") from error
    if not np.isfinite(T).all():
        raise InputError(f"{name} holds a number that is not finite: record it again or give --pose")
    return T
