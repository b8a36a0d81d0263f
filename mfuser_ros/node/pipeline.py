"""What exists while the node is configured: network, cameras, outputs, and the thread that joins them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Header, String

from mfuser_ros.errors import InferenceError
from mfuser_ros.node import qos
from mfuser_ros.node.camera import Camera, view_of
from mfuser_ros.node.drivable_output import DrivableOutput
from mfuser_ros.node.health import CameraHealth, Fault, Level, Limits, Report
from mfuser_ros.node.images import ImageError, check, encoding_of, to_rgb
from mfuser_ros.node.outgoing import class_map_message
from mfuser_ros.node.settings import Settings
from mfuser_ros.node.stamps import SECOND_NS, age_ns, stamp_ns
from mfuser_ros.node.timing import TimingTopics
from mfuser_ros.node.topics import Topics
from mfuser_ros.node.worker import Frame, Worker

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:
    LabelInfo = None

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmentation, Segmenter  # torch is loaded when the node is configured

UNLABELLED = (255, "unlabeled")


class _Work(NamedTuple):
    """One picture on its way."""

    camera: Camera
    header: Header
    height: int
    width: int
    stamp_ns: int | None
    generation: int
    settings: Settings


class Pipeline:
    """A configured node.

    Args:
        node: gives clock, names and log.
        outputs: makes the publishers, which live as long as the pipeline.
        settings: of the node.
        segmenter: ready to work.

    Raises:
        ConfigurationError: a grid that cannot be.
    """

    def __init__(self, node: Node, outputs: Topics, settings: Settings, segmenter: Segmenter) -> None:
        self._node = node
        self._settings = settings
        self._segmenter = segmenter
        self._logger = node.get_logger()
        self._cameras = {
            camera.name: Camera(node, outputs, camera, CameraHealth(segmenter.device, segmenter.name, segmenter.sha256))
            for camera in settings.cameras
        }
        self._drivable = DrivableOutput(outputs, segmenter.vocabulary, settings)
        self._timing = TimingTopics(outputs)
        self._class_map = outputs.publisher(String, "~/class_map", qos.latched())
        self._label_info = None if LabelInfo is None else outputs.publisher(LabelInfo, "~/label_info", qos.latched())
        self._worker: Worker | None = None
        self._last_active_ns = 0
        self._last_start_ns: int | None = None
        self._publish_meaning()

    def activate(self, inputs: Topics) -> None:
        """Listen to the cameras and work on what they send; `inputs` makes the subscriptions."""
        now_ns = time.monotonic_ns()
        self._last_active_ns, self._last_start_ns = now_ns, None
        self._drivable.reset()
        self._worker = Worker(list(self._cameras), self._process)
        self._worker.start()
        for camera in self._cameras.values():
            camera.health.watch(now_ns)
            camera.subscribe(inputs, self._settings.input_reliability, partial(self._on_image, camera))

    def deactivate(self, timeout: float | None = None) -> bool:
        """Finish the picture in work and take back the grid; returns whether the worker has ended in time."""
        worker, self._worker = self._worker, None
        if worker is None:
            return True
        ended = worker.stop(timeout)
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
        self._drivable.reset()

    def report(self, *, regular: bool) -> Mapping[str, Report]:
        """The state of every camera by its name."""
        settings, now_ns = self._settings, time.monotonic_ns()
        limits = Limits(
            settings.diagnostics_warn_latency, settings.diagnostics_error_latency, settings.diagnostics_stale_after
        )
        if regular:
            self._look_for_rivals()
        return {name: camera.health.report(now_ns, limits, regular=regular) for name, camera in self._cameras.items()}

    def note_mismatch(self, text: str) -> None:
        """Somebody's QoS does not fit ours; which camera it concerns cannot be told from every topic."""
        for camera in self._cameras.values():
            camera.health.note(Fault(Level.WARN, "qos", text))

    def watch(self) -> None:
        """Take back a grid that nothing has confirmed for too long."""
        worker = self._worker
        if worker is None or not worker.is_idle():
            return
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
            message = LabelInfo(threshold=float(self._threshold()))
            message.header.stamp = self._node.get_clock().now().to_msg()
            names = [(entry.id, entry.name) for entry in vocabulary.classes]
            message.class_map = [VisionClass(class_id=value, class_name=name) for value, name in [*names, UNLABELLED]]
            self._label_info.publish(message)

    def _threshold(self) -> float:
        wanted = self._settings.threshold
        return self._segmenter.default_threshold if wanted is None else wanted

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

    def _process(self, name: str, frame: Frame) -> None:
        camera = self._cameras[name]
        try:
            self._work_on(camera, frame)
        except Exception as error:  # the thread has to live on, whatever one picture does
            if self._node.context.ok():
                camera.tell_condition(Fault(Level.ERROR, "processing", one_line(error)))
        else:
            camera.health.clear_condition("processing")
        self._last_active_ns = time.monotonic_ns()

    def _work_on(self, camera: Camera, frame: Frame) -> None:
        started_ns, settings, generation = time.monotonic_ns(), self._settings, camera.gate.generation
        if not self._is_wanted(camera, frame, settings):
            return
        cyclic_ms = None if self._last_start_ns is None else (started_ns - self._last_start_ns) / 1e6
        self._last_start_ns = started_ns
        try:
            picture = to_rgb(frame.message)
        except ImageError as error:
            camera.reject(error, frame.message)
            return
        height, width = picture.shape[:2]
        header = frame.message.header
        camera.note_picture(header, encoding_of(frame.message), picture)
        region = camera.settings.roi
        if region is not None and not region.lies_in(height, width):
            text = (
                f"{camera.settings.name}.roi is {list(region)}, outside the {width}x{height} picture: make it smaller"
            )
            camera.drop("dropped_bad", Fault(Level.ERROR, "roi", text))
            return
        result = self._segment(camera, picture)
        work = _Work(camera, header, height, width, frame.stamp_ns, generation, settings)
        unknown_share = self._publish(work, result)
        processing_ms = (time.monotonic_ns() - started_ns) / 1e6
        age = age_ns(frame.stamp_ns, self._now_ns())
        latency_ms = None if age is None else age / 1e6
        camera.health.published(
            time.monotonic_ns(), processing_ms=processing_ms, latency_ms=latency_ms, unknown_share=unknown_share
        )
        self._timing.publish(
            self._node.get_clock().now().to_msg(),
            processing_ms=processing_ms,
            cyclic_ms=cyclic_ms,
            latency_ms=latency_ms,
            stages=None if result is None else self._segmenter.timing,
        )

    def _is_wanted(self, camera: Camera, frame: Frame, settings: Settings) -> bool:
        now_ns = self._now_ns()
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

    def _segment(self, camera: Camera, picture: np.ndarray) -> Segmentation | None:
        """The network's result; None, and a fault until a picture succeeds, where there is none."""
        try:
            threshold = self._threshold()
            if self._segmenter.threshold != threshold:
                self._segmenter.threshold = threshold
            region = camera.settings.roi
            result = self._segmenter(picture if region is None else region.cut(picture))
            if region is not None:
                result = region.spread(result, picture)
            for array in (result.mask, result.confidence):
                if array.shape != picture.shape[:2] or array.dtype != np.uint8:
                    raise InferenceError(f"result is {array.dtype} {array.shape} for a picture of {picture.shape[:2]}")
        except Exception as error:  # torch raises many kinds, out of memory among them
            camera.tell_condition(Fault(Level.ERROR, "inference", one_line(error)))
            return None
        camera.health.clear_condition("inference")
        return result

    def _publish(self, work: _Work, result: Segmentation | None) -> float:
        """Publish all that one picture gives; returns the share of unknown pixels."""
        camera, header, settings = work.camera, work.header, work.settings
        unknown_share = 1.0
        if result is None:
            camera.publish_unknown(header, work.height, work.width)
        else:
            unknown_share = camera.publish_result(header, result)
        camera.gate.published(work.stamp_ns, self._now_ns(), work.generation)
        camera.publish_camera_info(header, work.height, work.width)
        if settings.grid_enabled:
            self._publish_drivable(work, result)
        else:
            self._drivable.retract(self._now_ns())
        if result is not None:
            camera.publish_overlay(header, result, time.monotonic_ns(), settings)
        return unknown_share

    def _publish_drivable(self, work: _Work, result: Segmentation | None) -> None:
        camera, stamp = work.camera, work.header.stamp
        geometry = camera.geometry(work.header, work.height, work.width, work.settings.ground_z)
        if geometry is None:
            return
        if result is None:
            self._drivable.publish_unknown(stamp)
            return
        try:
            self._drivable.update(
                camera.settings.name, view_of(result, geometry, camera.settings.roi), stamp, work.settings
            )
        except Exception as error:  # the mask is out already, and a grid that may be wrong must not stay
            camera.tell_condition(Fault(Level.ERROR, "drivable_area", one_line(error)))
            self._drivable.publish_unknown(stamp)
        else:
            camera.health.clear_condition("drivable_area")


def one_line(error: BaseException) -> str:
    """Text of an error on one line; with its type where the text says little."""
    text = " ".join(str(error).split())
    return text if text and type(error).__module__.startswith("mfuser_ros") else f"{type(error).__name__}: {text}"
