"""Play a bag to the running node over DDS and collect what it answers, frame by frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import rclpy
from nav_msgs.msg import OccupancyGrid
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Float64, String

from mfuser_ros.bags.read import Frame
from mfuser_ros.errors import InputError, NodeError
from mfuser_ros.node import exchange
from mfuser_ros.node.complaints import Complaints

Output = Literal["mask", "confidence", "grid", "contacts"]

TIMES = (
    "processing_time_ms",
    "processing_time/preprocess_ms",
    "processing_time/inference_ms",
    "processing_time/postprocess_ms",
)
"""Debug topics of the node that the player gathers, without the leading `debug/`."""

INTRODUCTION_S = 0.5
"""How long CameraInfo alone is sent before the first picture."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What the node published for one frame. What was not asked for is None.

    Attributes:
        frame: the frame of the bag.
        mask: uint8 (H, W) class ids, 255 unknown.
        mask_frame_id: frame in the mask's header.
        confidence: uint8 (H, W), 0..255 for 0..1.
        grid: drivable area.
        contacts: float32 (N, 4) x, y, z in metres and class id.
        round_trip_ms: from handing the picture to DDS until the mask was here.
    """

    frame: Frame
    mask: np.ndarray
    mask_frame_id: str
    confidence: np.ndarray | None
    grid: exchange.Grid | None
    contacts: np.ndarray | None
    round_trip_ms: float


class Player:
    """Publishes the frames of one camera and waits for the answers of a node in another process.

    A frame is sent when the answer to the last one has come, so that none is dropped. Use it as a context manager.

    Attributes:
        times: milliseconds that the node published of its own work, one list for each of `TIMES`.
        class_map: JSON text that the node latched; None until `wait_for_node` has returned.
    """

    def __init__(
        self,
        *,
        image_topic: str,
        compressed: bool,
        node: str = "/mfuser",
        camera: str = "front",
        outputs: Collection[Output] = (),
        domain_id: int | None = None,
        still_alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Join the graph.

        Args:
            image_topic: raw topic that the node listens to; compressed frames go to `<image_topic>/compressed`.
            compressed: whether the frames are CompressedImages.
            node: fully qualified name of the node.
            camera: the node's name for the camera.
            outputs: what to wait for with every frame; the mask always.
            domain_id: ROS domain; None takes ROS_DOMAIN_ID.
            still_alive: called while waiting; raises to give up, as when the node's process has ended.
        """
        self._still_alive = still_alive
        self._introduced = False
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node("bag_player", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        kind = CompressedImage if compressed else Image
        self._images = self._node.create_publisher(
            kind, f"{image_topic}/compressed" if compressed else image_topic, _reliable(depth=2)
        )
        self._infos = self._node.create_publisher(
            CameraInfo, f"{image_topic.rpartition('/')[0]}/camera_info", _reliable(depth=5)
        )
        self._topics: dict[Output, tuple[Any, str]] = {  # Any: classes of messages have no common type
            "mask": (Image, f"{node}/{camera}/mask"),
            "confidence": (Image, f"{node}/{camera}/confidence"),
            "grid": (OccupancyGrid, f"{node}/drivable_area/grid"),
            "contacts": (PointCloud2, f"{node}/drivable_area/contacts"),
        }
        self._wanted: list[Output] = ["mask", *sorted({*outputs} - {"mask"})]
        self._arrived: dict[Output, dict[int, Any]] = {name: {} for name in self._wanted}
        self._mask_at_s: dict[int, float] = {}
        for name in self._wanted:
            message, topic = self._topics[name]
            self._node.create_subscription(message, topic, self._keep(name), _reliable(depth=5))
        self.times: dict[str, list[float]] = {name: [] for name in TIMES}
        for part in TIMES:
            self._node.create_subscription(Float64, f"{node}/debug/{part}", self._keep_time(part), _reliable(depth=10))
        self._complaints = Complaints(self._node, [f"{node.rpartition('/')[2]}: {camera}"])
        self.class_map: str | None = None
        self._class_map_topic = f"{node}/class_map"
        self._node.create_subscription(String, self._class_map_topic, self._keep_class_map, _latched())

    @property
    def diagnostics(self) -> dict[str, str]:
        """Newest key-value pairs of the camera's status on /diagnostics; empty before the first."""
        return self._complaints.values

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def wait_for_node(self, *, deadline_s: float) -> None:
        """Return when the node listens to the pictures, publishes every output, and has sent its class map.

        Raises:
            NodeError: something is missing after `deadline_s`, or the node says that it failed; the text names it.
        """
        waits: list[tuple[str, Callable[[], bool]]] = [
            (f"subscription to {self._images.topic_name}", lambda: self._images.get_subscription_count() > 0),
            *((f"publisher of {topic}", self._is_published(topic)) for topic in self._output_topics()),
            (f"class map on {self._class_map_topic}", lambda: self.class_map is not None),
        ]
        end_s = time.monotonic() + deadline_s
        for what, is_there in waits:
            if not self._spin_until(self._or_failed(is_there), end_s):
                seen = ", ".join(sorted({f"{space.rstrip('/')}/{name}" for name, space in self._others()})) or "none"
                raise NodeError(f"no {what} after {deadline_s:g} s (nodes seen: {seen}): see the node's log")
            if self._complaints.has_failed:
                raise NodeError(f"the node is not ready: {self._complaints}")

    def play(self, frames: Iterable[Frame], *, deadline_s: float = 30.0) -> Iterator[Answer]:
        """Send each frame when the answer to the last one has come; yield the answers.

        Raises:
            NodeError: an output of a frame did not come within `deadline_s`; the text names topic and frame.
            InputError: a stamp is not later than the one before, so that the node would drop the frame.
        """
        newest_ns = -1
        for frame in frames:
            if frame.stamp_ns <= newest_ns:
                raise InputError(
                    f"frame {frame.index}: stamp {frame.stamp_ns} ns is not after the one before ({newest_ns} ns): "
                    "the node drops such frames, sort the bag"
                )
            newest_ns = frame.stamp_ns
            yield self._ask(frame, deadline_s)

    def _ask(self, frame: Frame, deadline_s: float) -> Answer:
        if frame.info is not None:
            info = exchange.info_message(frame, frame.info)
            self._infos.publish(info)
            if not self._introduced:
                self._introduce(info, deadline_s)
        message = exchange.image_message(frame)
        sent_s = time.monotonic()
        self._images.publish(message)
        for name in self._wanted:
            if not self._spin_until(self._has_arrived(name, frame.stamp_ns), sent_s + deadline_s):
                raise NodeError(
                    f"frame {frame.index} (stamp {frame.stamp_ns} ns): nothing on {self._topics[name][1]} after "
                    f"{deadline_s:g} s: {self._complaints or 'see the log of the node'}"
                )
        got = {name: self._arrived[name].pop(frame.stamp_ns) for name in self._wanted}
        for arrived in self._arrived.values():
            arrived.clear()
        return Answer(
            frame,
            mask=exchange.pixels(got["mask"]),
            mask_frame_id=got["mask"].header.frame_id,
            confidence=exchange.pixels(got["confidence"]) if "confidence" in got else None,
            grid=exchange.grid(got["grid"]) if "grid" in got else None,
            contacts=exchange.contacts(got["contacts"]) if "contacts" in got else None,
            round_trip_ms=(self._mask_at_s.pop(frame.stamp_ns) - sent_s) * 1e3,
        )

    def _introduce(self, info: CameraInfo, deadline_s: float) -> None:
        """Let the node take the first CameraInfo in before the first picture.

        The node listens to CameraInfo as best effort, so DDS acknowledges nothing, and an executor may serve the
        picture first although it was sent later; that frame would have no grid.
        """
        if not self._spin_until(lambda: self._infos.get_subscription_count() > 0, time.monotonic() + deadline_s):
            raise NodeError(f"no subscription to {self._infos.topic_name} after {deadline_s:g} s: see the node's log")
        end_s = time.monotonic() + INTRODUCTION_S
        while time.monotonic() < end_s:
            self._infos.publish(info)
            self._spin_until(lambda: False, time.monotonic() + INTRODUCTION_S / 10)
        self._introduced = True

    def _spin_until(self, condition: Callable[[], bool], end_s: float) -> bool:
        """Whether `condition` came true before the monotonic time `end_s`."""
        while not condition():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            self._still_alive()
            self._executor.spin_once(timeout_sec=min(left_s, 0.1))
        return True

    def _or_failed(self, condition: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: condition() or self._complaints.has_failed

    def _output_topics(self) -> list[str]:
        return [self._topics[name][1] for name in self._wanted]

    def _is_published(self, topic: str) -> Callable[[], bool]:
        return lambda: self._node.count_publishers(topic) > 0

    def _others(self) -> list[tuple[str, str]]:
        own = (self._node.get_name(), self._node.get_namespace())
        return [pair for pair in self._node.get_node_names_and_namespaces() if pair != own]

    def _has_arrived(self, name: Output, stamp_ns: int) -> Callable[[], bool]:
        return lambda: stamp_ns in self._arrived[name]

    def _keep(self, name: Output) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            self._arrived[name][stamp_ns] = message
            if name == "mask":
                self._mask_at_s[stamp_ns] = time.monotonic()

        return keep

    def _keep_time(self, name: str) -> Callable[[Float64], None]:
        return lambda message: self.times[name].append(float(message.data))

    def _keep_class_map(self, message: String) -> None:
        self.class_map = str(message.data)


def _reliable(*, depth: int) -> QoSProfile:
    return QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=depth, reliability=QoSReliabilityPolicy.RELIABLE)


def _latched() -> QoSProfile:
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=QoSReliabilityPolicy.RELIABLE,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
    )
