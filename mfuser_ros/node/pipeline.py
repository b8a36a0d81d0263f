"""What exists while the node is configured: network, cameras, outputs, and the thread that joins them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rclpy.node import Node

from mfuser_ros.node import device, interface
from mfuser_ros.node.answers import Answers, Published
from mfuser_ros.node.camera import Camera, resolved
from mfuser_ros.node.drivable_output import DrivableOutput
from mfuser_ros.node.health import CameraHealth, Fault, Level, Limits, Report
from mfuser_ros.node.images import ImageError, check
from mfuser_ros.node.intake import Work, accept
from mfuser_ros.node.lines import one_line
from mfuser_ros.node.network import Network
from mfuser_ros.node.odometry import Odometry
from mfuser_ros.node.outgoing import class_map_message, label_info_message
from mfuser_ros.node.pose_watch import PoseWatch
from mfuser_ros.node.poses import Poses
from mfuser_ros.node.settings import Settings
from mfuser_ros.node.stamps import SECOND_NS, age_ns, stamp_ns
from mfuser_ros.node.steadied import Steadied
from mfuser_ros.node.timing import TimingTopics
from mfuser_ros.node.topics import Topics
from mfuser_ros.node.watchdog import NAME as PROCESSING_TIME
from mfuser_ros.node.watchdog import TimeLimits, Watchdog
from mfuser_ros.node.worker import Frame, Worker

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmentation, Segmenter  # torch is loaded when the node is configured

Result = TypeVar("Result")


class Pipeline:
    """A configured node.

    Args:
        node: gives clock, names and log.
        outputs: makes the publishers, which live as long as the pipeline.
        settings: of the node.
        segmenter: ready to work.

    Raises:
        ConfigurationError: a grid, a topic or a source of poses that cannot be.
    """

    def __init__(self, node: Node, outputs: Topics, settings: Settings, segmenter: Segmenter) -> None:
        self._node = node
        self._settings = settings
        self._segmenter = segmenter
        self._engine = ""
        self._network = Network(segmenter, batch_limit=len(settings.cameras))
        self._poses = Poses(node, settings)
        self._odometry: Odometry | None = None
        self._odometry_topic = ""
        if settings.odometry_topic:
            self._odometry = Odometry(settings.grid_frame)
            self._odometry_topic = resolved(node, "odometry_topic", settings.odometry_topic)
        autoware = segmenter.vocabulary if settings.autoware_mask else None
        self._cameras = {
            camera.name: Camera(
                node,
                outputs,
                camera,
                CameraHealth(segmenter.device, segmenter.name, segmenter.sha256),
                self._poses,
                autoware,
            )
            for camera in settings.cameras
        }
        self._drivable = DrivableOutput(outputs, segmenter.vocabulary, settings)
        self._pose_watch = PoseWatch(segmenter.vocabulary)
        self._answers = Answers(node, self._drivable, self._odometry, self._pose_watch)
        self._steadied = Steadied(segmenter)
        self._timing = TimingTopics(outputs)
        self._watchdog = Watchdog()
        self._class_map = outputs.publisher(interface.CLASS_MAP)
        try:
            self._label_info = outputs.publisher(interface.LABEL_INFO)
        except ImportError:  # of vision_msgs, which few installations have
            self._label_info = None
        self._worker: Worker[Frame] | None = None
        self._last_active_ns = 0
        self._last_start_ns: int | None = None
        self._memory: dict[str, str] = {}
        self._lost: set[str] = set()  # cameras that have just lost their calibration
        self._publish_meaning()

    def activate(self, inputs: Topics) -> None:
        """Listen to the cameras and work on what they send; `inputs` makes the subscriptions."""
        now_ns = time.monotonic_ns()
        self._last_active_ns, self._last_start_ns = now_ns, None
        self._drivable.reset()
        self._pose_watch.start(list(self._cameras))
        self._worker = Worker(list(self._cameras), self._process, lambda: self._network.batch_limit)
        self._worker.start()
        self._poses.start()
        if self._odometry is not None:
            self._odometry.clear()
            inputs.subscription(interface.ODOMETRY, self._odometry.add, topic=self._odometry_topic)
        for camera in self._cameras.values():
            camera.health.watch(now_ns)
            camera.subscribe(
                inputs,
                self._settings.input_reliability,
                partial(self._on_image, camera),
                partial(self._on_lost_calibration, camera),
            )

    def deactivate(self, timeout: float | None = None) -> bool:
        """Finish the pictures in work and take back the grid; returns whether the worker has ended in time."""
        worker, self._worker = self._worker, None
        if worker is None:
            return True
        ended = worker.stop(timeout)
        ended = self._pose_watch.stop(timeout) and ended
        self._watchdog.reset()
        self._poses.stop()
        for camera in self._cameras.values():
            camera.health.watch(None)
        if ended:
            self._drivable.retract(self._now_ns())
        return ended

    def change(self, settings: Settings) -> None:
        """Work by other settings from the next picture on."""
        before, self._settings = self._settings, settings
        if (before.threshold, before.free_roles) != (settings.threshold, settings.free_roles):
            self._publish_meaning()
        if not settings.grid_enabled:
            for camera in self._cameras.values():
                camera.clear_geometry_faults()

    def reset(self) -> None:
        """Time has jumped backwards: nothing of before is to be compared with what comes."""
        if self._worker is not None:
            self._worker.discard()
        for camera in self._cameras.values():
            camera.reset()
        self._poses.clear()
        if self._odometry is not None:
            self._odometry.clear()
        self._drivable.reset()
        self._pose_watch.reset()

    def report(self, *, regular: bool) -> Mapping[str, Report]:
        """The state of every camera by its name, then that of the processing time."""
        settings, now_ns, clock_ns = self._settings, time.monotonic_ns(), self._now_ns()
        limits = Limits(
            settings.diagnostics_warn_latency, settings.diagnostics_error_latency, settings.diagnostics_stale_after
        )
        if regular or not self._memory:
            self._memory = device.memory(self._segmenter.device)
        if regular:
            self._look_for_rivals()
        shared = {"engine": self._segmenter.state, "batch_limit": str(self._network.batch_limit), **self._memory}
        reports = {}
        for name, camera in self._cameras.items():
            report = camera.health.report(now_ns, limits, regular=regular, clock_ns=clock_ns)
            reports[name] = report._replace(values=report.values | shared)
        reports[PROCESSING_TIME] = self._watchdog.report(now_ns, _time_limits(settings))
        return reports

    def note_mismatch(self, text: str) -> None:
        """Somebody's QoS does not fit that of a topic that all cameras share."""
        self._node.get_logger().warning(f"QoS: {text}")
        for camera in self._cameras.values():
            camera.health.note(Fault(Level.WARN, "qos", text))

    def watch(self) -> None:
        """Take back a grid that nothing has confirmed for too long, or whose camera has lost its calibration."""
        worker = self._worker
        if worker is None or not worker.is_idle():
            return
        while self._lost:
            name = self._lost.pop()
            if not self._cameras[name].is_calibrated:
                self._drivable.retract(self._now_ns(), of=name)
        if time.monotonic_ns() - self._last_active_ns > self._settings.diagnostics_stale_after * SECOND_NS:
            self._drivable.retract(self._now_ns())

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _look_for_rivals(self) -> None:
        if self._worker is None:
            return
        for camera in self._cameras.values():
            count = self._node.count_publishers(camera.image_topic)
            if count > 1:
                text = f"{count} publishers on {camera.image_topic}: their pictures are mixed"
                if camera.warn_once("rivals", text):
                    camera.health.note(Fault(Level.WARN, "rivals", text))

    def _publish_meaning(self) -> None:
        vocabulary = self._segmenter.vocabulary
        self._class_map.publish(class_map_message(vocabulary, self._settings.free_roles))
        if self._label_info is not None:
            stamp = self._node.get_clock().now().to_msg()
            self._label_info.publish(label_info_message(vocabulary, self._threshold(self._settings), stamp))

    def _threshold(self, settings: Settings) -> float:
        return self._segmenter.default_threshold if settings.threshold is None else settings.threshold

    def _on_image(self, camera: Camera, message: Any) -> None:  # Any: Image or CompressedImage
        arrival_ns, stamp = time.monotonic_ns(), stamp_ns(message.header.stamp)
        camera.health.arrived(arrival_ns, stamp)
        try:
            check(message)
        except ImageError as error:
            camera.reject(error, message)
            return
        if self._worker is not None:
            self._last_active_ns = arrival_ns
            if self._worker.put(camera.settings.name, Frame(message, stamp, arrival_ns)):
                camera.health.replaced()

    def _on_lost_calibration(self, camera: Camera) -> None:
        # a grid that is in work now is the last of this camera: taken back after it, or with the next picture
        self._lost.add(camera.settings.name)

    def _process(self, frames: Mapping[str, Frame]) -> None:
        """One batch: the newest picture of every camera that has one. Must not raise: the thread has to live on."""
        started_ns, settings = time.monotonic_ns(), self._settings
        works: list[Work] = []
        for name, frame in frames.items():
            camera = self._cameras[name]
            work = self._guarded(camera, partial(accept, self._node, camera, frame, settings))
            if work is not None:
                works.append(work)
        if works:
            cyclic_ms = None if self._last_start_ns is None else (started_ns - self._last_start_ns) / 1e6
            self._last_start_ns = started_ns
            self._watchdog.begin(started_ns)
            answers = self._network.segment([work.seen for work in works], self._threshold(settings))
            self._tell_engine()
            # the masks of all cameras first: nobody waits for the grid of another camera
            published = [
                self._guarded(work.camera, partial(self._publish_mask, work, answer, started_ns, cyclic_ms))
                for work, answer in zip(works, answers, strict=True)
            ]
            for one in published:
                if one is not None:
                    self._guarded(one.work.camera, partial(self._answers.publish_ground, one))
            self._watchdog.end(time.monotonic_ns(), _time_limits(settings), self._segmenter.timing)
            for work in works:  # last, because nobody waits for it
                hold_s = settings.diagnostics_camera_trouble_after
                look = partial(work.camera.look_for_trouble, work.seen, time.monotonic_ns(), hold_s)
                self._guarded(work.camera, look)
        self._last_active_ns = time.monotonic_ns()

    def _tell_engine(self) -> None:
        """Say once how the network runs, and again when that changes: compiled, recorded, in smaller batches."""
        if (state := self._segmenter.state) != self._engine:
            self._engine = state
            self._node.get_logger().info(f"engine: {state}")

    def _guarded(self, camera: Camera, step: Callable[[], Result]) -> Result | None:
        """The result of a step; None, and a fault until a picture succeeds, where it raises."""
        try:
            return step()
        except Exception as error:  # one picture must harm no other camera
            if self._node.context.ok():
                camera.tell_condition(Fault(Level.ERROR, "processing", one_line(error)))
            return None

    def _publish_mask(
        self, work: Work, answer: Segmentation | Fault, started_ns: int, cyclic_ms: float | None
    ) -> Published:
        answer = self._steadied(work, answer)
        published = self._answers.publish_mask(work, answer)
        now_ns, clock = time.monotonic_ns(), self._node.get_clock().now()
        processing_ms = (now_ns - started_ns) / 1e6
        age = age_ns(work.stamp_ns, int(clock.nanoseconds))
        latency_ms = None if age is None else age / 1e6
        health = work.camera.health
        health.clear_condition("processing")
        health.published(
            now_ns,
            work.stamp_ns,
            processing_ms=processing_ms,
            latency_ms=latency_ms,
            unknown_share=published.unknown_share,
        )
        self._timing.publish(
            clock.to_msg(),
            processing_ms=processing_ms,
            cyclic_ms=cyclic_ms,
            latency_ms=latency_ms,
            stages=None if isinstance(answer, Fault) else self._segmenter.timing,
        )
        return published


def _time_limits(settings: Settings) -> TimeLimits:
    return TimeLimits(
        settings.diagnostics_max_allowed_processing_time_ms, settings.diagnostics_max_acceptable_consecutive_delay_ms
    )
