"""From a message to a picture that is worth the network's time, or to what is said of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Header

from mfuser_ros.node.camera import Camera
from mfuser_ros.node.camera_output import Size
from mfuser_ros.node.health import Fault, Level
from mfuser_ros.node.images import ImageError, encoding_of, to_rgb
from mfuser_ros.node.settings import Settings
from mfuser_ros.node.stamps import age_ns
from mfuser_ros.node.worker import Frame


class Work(NamedTuple):
    """One picture on its way."""

    camera: Camera
    header: Header
    picture: np.ndarray  # uint8 RGB (H, W, 3)
    stamp_ns: int | None
    generation: int  # of the camera's gate
    settings: Settings

    @property
    def size(self) -> Size:
        """Height and width of the picture."""
        return self.picture.shape[0], self.picture.shape[1]

    @property
    def seen(self) -> np.ndarray:
        """The part of the picture that is looked at."""
        region = self.camera.settings.roi
        return self.picture if region is None else region.cut(self.picture)


def accept(node: Node, camera: Camera, frame: Frame, settings: Settings) -> Work | None:
    """Judge a picture by its stamp and make an array of it; None, with a word in diagnostics, if it is dropped."""
    generation = camera.gate.generation
    if not _is_wanted(node, camera, frame, settings):
        return None
    try:
        picture = to_rgb(frame.message)
    except ImageError as error:
        camera.reject(error, frame.message)
        return None
    work = Work(camera, frame.message.header, picture, frame.stamp_ns, generation, settings)
    height, width = work.size
    camera.note_picture(work.header, encoding_of(frame.message), work.size)
    region = camera.settings.roi
    if region is not None and not region.lies_in(height, width):
        text = f"{camera.settings.name}.roi is {list(region)}, outside the {width}x{height} picture: make it smaller"
        camera.drop("dropped_bad", Fault(Level.ERROR, "roi", text))
        return None
    return work


def _is_wanted(node: Node, camera: Camera, frame: Frame, settings: Settings) -> bool:
    now_ns = int(node.get_clock().now().nanoseconds)
    verdict = camera.gate.judge(
        frame.stamp_ns, now_ns, frame.arrival_ns, max_age=settings.max_age, max_rate=settings.max_rate
    )
    fault = Fault(Level.WARN, verdict.warning, verdict.text)
    if verdict.action == "drop":
        camera.drop("dropped_late", fault)
    elif verdict.warning:
        camera.health.note(fault)
        camera.warn_once(verdict.warning, verdict.text)
    elif frame.stamp_ns and now_ns and age_ns(frame.stamp_ns, now_ns) is None:
        text = "clock and stamps differ by more than an hour, ages are not checked: set use_sim_time for a bag"
        camera.warn_once("epoch", text)
    return verdict.action == "process"
