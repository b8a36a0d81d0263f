"""Plays pictures to the running node over DDS as cameras do, whether it answers or not, and notes when masks come."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import rclpy
from nav_msgs.msg import OccupancyGrid
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mfuser_ros.errors import NodeError
from mfuser_ros.node.complaints import Complaints
from mfuser_ros.node.live_figures import Played
from mfuser_ros.node.tape import Cue, TapeCamera

WARM_UP_MASKS = 3
"""Answers of every camera before a measurement: the first ones meet cold caches."""

ASK_AGAIN_S = 5.0
"""A picture of the warm-up that is not answered within this time is sent again: best effort may lose it."""

STALL_S = 30.0
"""Silence after which a node is given up, if at least `STALL_PICTURES` were sent in this time."""

STALL_PICTURES = 10

DRAIN_S = 5.0
"""How long the last masks are waited for."""

LOOK_EVERY_S = 0.1


class LivePlayer:
    """Publishes pictures when they are due, with the moment as their stamp. Use it as a context manager.

    Attributes:
        complaints: what the node says of itself.
    """

    def __init__(
        self,
        cameras: Sequence[TapeCamera],
        *,
        node: str = "/mfuser",
        domain_id: int | None = None,
        still_alive: Callable[[], None] = lambda: None,
        stall_s: float = STALL_S,
    ) -> None:
        """Join the graph.

        Args:
            cameras: to play.
            node: fully qualified name of the node.
            domain_id: ROS domain; None takes ROS_DOMAIN_ID.
            still_alive: called while waiting; raises to give up, as when the node's process has ended.
            stall_s: a node that publishes no mask for this time while pictures are sent is given up.
        """
        self._cameras = list(cameras)
        self._still_alive = still_alive
        self._stall_s = stall_s
        self._changed = threading.Condition()
        self._masks_s: dict[tuple[str, int], float] = {}
        self._counts = dict.fromkeys((camera.name for camera in self._cameras), 0)
        self._newest_mask_s = 0.0
        self._unanswered: list[float] = []  # when pictures were sent since the newest mask
        self._answer_s = 0.0  # how long the last answer of the warm-up took
        self._stamps: dict[str, int] = {}
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node("live_player", context=self._context)
        self._images = {camera.name: self._image_publisher(camera) for camera in self._cameras}
        self._infos = {
            camera.name: self._node.create_publisher(
                CameraInfo, f"{camera.image_topic.rpartition('/')[0]}/camera_info", _reliable(5)
            )
            for camera in self._cameras
        }
        self._mask_topics = {camera.name: f"{node}/{camera.name}/mask" for camera in self._cameras}
        for name, topic in self._mask_topics.items():
            self._node.create_subscription(Image, topic, self._keep(name), _reliable(5))
        if any(camera.pose is not None for camera in self._cameras):  # a vehicle listens to the drivable area, too
            self._node.create_subscription(OccupancyGrid, f"{node}/drivable_area/grid", lambda _: None, _reliable(1))
        self.complaints = Complaints(
            self._node, [f"{node.rpartition('/')[2]}: {camera.name}" for camera in self._cameras]
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="live_player", daemon=True)
        self._thread.start()

    def __enter__(self) -> LivePlayer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        self._context.try_shutdown()

    def wait_for_node(self, *, deadline_s: float) -> None:
        """Return when the node listens to every camera, publishes its mask, and has sent diagnostics.

        Raises:
            NodeError: something is missing after `deadline_s`, or the node says that it failed; the text names it.
        """
        end_s = time.monotonic() + deadline_s
        for camera in self._cameras:
            images, mask = self._images[camera.name], self._mask_topics[camera.name]
            self._wait_for(
                lambda images=images: images.get_subscription_count() > 0,  # type: ignore[misc]  # mypy sees no default
                f"subscription to {images.topic_name}",
                end_s,
            )
            self._wait_for(
                lambda mask=mask: self._node.count_publishers(mask) > 0,  # type: ignore[misc]  # as above
                f"publisher of {mask}",
                end_s,
            )
        self._wait_for(lambda: bool(self.complaints.values), "status on /diagnostics", end_s)

    def warm_up(self, firsts: Iterable[Cue], *, deadline_s: float) -> int:
        """Send the same picture of every camera until `WARM_UP_MASKS` masks of it have come.

        Returns:
            How many pictures were sent.

        Raises:
            NodeError: a camera has no mask within `deadline_s`; the text names its topic.
        """
        sent, end_s = 0, time.monotonic() + deadline_s
        for cue in firsts:
            masks, asked_s = 0, time.monotonic()
            while masks < WARM_UP_MASKS:
                before = self._counts[cue.camera]
                self._send(cue)
                sent += 1
                if self._until(self._has_more(cue.camera, before), min(end_s, time.monotonic() + ASK_AGAIN_S)):
                    masks += 1
                    self._answer_s, asked_s = time.monotonic() - asked_s, time.monotonic()
                elif time.monotonic() >= end_s:
                    raise NodeError(
                        f"no mask on {self._mask_topics[cue.camera]} after {deadline_s:g} s: "
                        f"{self.complaints or 'see the log of the node'}"
                    )
        return sent

    def play(
        self, cues: Iterable[Cue], *, on_sent: Callable[[int], None] = lambda _: None
    ) -> Mapping[str, Sequence[Played]]:
        """Publish every picture when it is due, and wait for the last masks.

        A picture that is late by more than half its interval delays all that follow, so that no burst of pictures is
        blamed on the node; the rate that was played tells of it.

        Args:
            cues: in the order of their due times.
            on_sent: called with the number of pictures sent so far.

        Returns:
            What was played of each camera.

        Raises:
            NodeError: the node has ended, or has been silent for `stall_s`.
        """
        sent: dict[str, list[tuple[float, float, int]]] = {camera.name: [] for camera in self._cameras}
        with self._changed:
            self._masks_s.clear()
        coming = iter(cues)
        ready = list(islice(coming, 1))  # opening a bag takes its time
        begin_s = time.monotonic() + LOOK_EVERY_S
        self._unanswered.clear()
        shift_s = 0.0
        for count, cue in enumerate(chain(ready, coming), start=1):
            before = sent[cue.camera]
            self._sleep_until(begin_s + cue.due_s + shift_s)
            self._check_stall()
            stamp_ns, now_s = self._send(cue)
            late_s = now_s - (begin_s + cue.due_s + shift_s)
            if before and late_s > (cue.due_s - before[-1][0]) / 2:
                shift_s += late_s
            before.append((cue.due_s, now_s - begin_s, stamp_ns))
            on_sent(count)
        self._drain({name: entries[-1][2] for name, entries in sent.items() if entries})
        with self._changed:
            arrived = {key: at_s - begin_s for key, at_s in self._masks_s.items()}
        return {
            name: [Played(due_s, sent_s, arrived.get((name, stamp_ns))) for due_s, sent_s, stamp_ns in entries]
            for name, entries in sent.items()
        }

    def _send(self, cue: Cue) -> tuple[int, float]:
        """Publish a picture; returns its stamp in ns and the moment in s of the steady clock."""
        now_s = time.monotonic()
        stamp_ns = max(time.time_ns(), self._stamps.get(cue.camera, 0) + 1)
        self._stamps[cue.camera] = stamp_ns
        self._unanswered.append(now_s)
        for publisher, message in ((self._infos[cue.camera], cue.info), (self._images[cue.camera], cue.image)):
            if message is not None:
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
                publisher.publish(message)
        return stamp_ns, now_s

    def _sleep_until(self, due_s: float) -> None:
        while (left_s := due_s - time.monotonic()) > 0:
            self._still_alive()
            time.sleep(min(left_s, LOOK_EVERY_S))
        self._still_alive()

    def _check_stall(self) -> None:
        patience_s, unanswered = max(self._stall_s, 3 * self._answer_s), list(self._unanswered)
        if len(unanswered) >= STALL_PICTURES and time.monotonic() - unanswered[0] > patience_s:
            raise NodeError(
                f"no mask for {patience_s:g} s while {len(unanswered)} pictures were sent: "
                f"{self.complaints or 'see the log of the node'}"
            )

    def _drain(self, last: Mapping[str, int]) -> None:
        """Wait until the newest picture of every camera has its mask, or nothing comes any more."""
        began_s, patience_s = time.monotonic(), max(DRAIN_S, 3 * self._answer_s)

        def all_here() -> bool:
            return all(key in self._masks_s for key in last.items())

        while not all_here():
            end_s = max(began_s, self._newest_mask_s) + patience_s
            if time.monotonic() >= end_s:
                return
            self._until(all_here, end_s)

    def _wait_for(self, condition: Callable[[], bool], what: str, end_s: float) -> None:
        waited_s = end_s - time.monotonic()
        if not self._until(lambda: condition() or self.complaints.has_failed, end_s):
            names = {f"{space.rstrip('/')}/{name}" for name, space in self._node.get_node_names_and_namespaces()}
            seen = ", ".join(sorted(names - {f"/{self._node.get_name()}"})) or "none"
            raise NodeError(f"no {what} after {waited_s:.0f} s (nodes seen: {seen}): see the node's log")
        if self.complaints.has_failed:
            raise NodeError(f"the node is not ready: {self.complaints}")

    def _until(self, condition: Callable[[], bool], end_s: float) -> bool:
        """Whether `condition` came true before the monotonic time `end_s`."""
        while not condition():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            self._still_alive()
            with self._changed:
                if not condition():
                    self._changed.wait(min(left_s, LOOK_EVERY_S))
        return True

    def _has_more(self, camera: str, before: int) -> Callable[[], bool]:
        return lambda: self._counts[camera] > before

    def _keep(self, camera: str) -> Callable[[Image], None]:
        def keep(message: Image) -> None:
            now_s = time.monotonic()
            stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            with self._changed:
                self._masks_s.setdefault((camera, stamp_ns), now_s)
                self._counts[camera] += 1
                self._newest_mask_s = now_s
                self._unanswered.clear()
                self._changed.notify_all()

        return keep

    def _image_publisher(
        self, camera: TapeCamera
    ) -> Any:  # Any: rclpy's Publisher takes no parameters in older releases
        if camera.compressed:
            return self._node.create_publisher(CompressedImage, f"{camera.image_topic}/compressed", _reliable(2))
        return self._node.create_publisher(Image, camera.image_topic, _reliable(2))

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):  # as raised when `close` shuts the context down
            self._executor.spin()


def _reliable(depth: int) -> QoSProfile:
    return QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=depth, reliability=QoSReliabilityPolicy.RELIABLE)
