"""One camera of the node: its topics, its calibration, its health."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from mfuser_ros.drivable import CameraModel, View
from mfuser_ros.errors import CalibrationError, ConfigurationError
from mfuser_ros.node import qos
from mfuser_ros.node.calibration import Intrinsics, intrinsics, pose_matrix
from mfuser_ros.node.health import CameraHealth, Fault, Level
from mfuser_ros.node.images import ImageError, encoding_of
from mfuser_ros.node.outgoing import PictureMessage
from mfuser_ros.node.roi import Region
from mfuser_ros.node.settings import CameraSettings, Settings
from mfuser_ros.node.stamps import SECOND_NS, StampGate
from mfuser_ros.node.topics import Topics
from mfuser_ros.vocabulary import UNKNOWN

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmentation  # torch is loaded when the node is configured

LOG_PERIOD_NS = 5 * SECOND_NS
MAX_TOLD = 50  # different warnings: a source that sends nonsense must not fill log and memory
GEOMETRY_FAULTS = ("no_camera_info", "size_mismatch", "frame_id", "no_pose")


class Calibration(NamedTuple):
    """The newest CameraInfo, if it is valid."""

    message: CameraInfo
    frame_id: str
    intrinsics: Intrinsics
    model: CameraModel


class Geometry(NamedTuple):
    """Where a picture, or the region of it that is looked at, was seen from."""

    model: CameraModel
    T_ground_camera: np.ndarray  # (4, 4), the ground is z = 0


class Camera:
    """What belongs to one camera while the node is configured.

    Args:
        node: for names and the log.
        topics: makes the publishers `~/<cam>/…`.
        settings: of this camera.
        health: of this camera.

    Raises:
        ConfigurationError: a topic name that cannot be.
    """

    def __init__(self, node: Node, topics: Topics, settings: CameraSettings, health: CameraHealth) -> None:
        self.settings = settings
        self.health = health
        self.gate = StampGate()
        self._logger = node.get_logger()
        suffix = "/compressed" if settings.transport == "compressed" else ""
        self.image_topic = _resolved(node, f"{settings.name}.image_topic", settings.image_topic + suffix)
        beside = self.image_topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
        self.info_topic = _resolved(node, f"{settings.name}.info_topic", settings.info_topic or beside)
        base_name = self.image_topic.removesuffix("/compressed").rpartition("/")[2]
        self._rectified = settings.rectified or base_name.startswith("image_rect")
        self._calibration: Calibration | None = None
        self._size: tuple[int, int] | None = None
        self._told: set[str] = set()
        self._next_overlay_ns = 0
        self._next_log_ns: dict[str, int] = {}
        name = settings.name
        self._mask = topics.publisher(Image, f"~/{name}/mask", qos.results())
        self._confidence = topics.publisher(Image, f"~/{name}/confidence", qos.results())
        self._overlay = topics.publisher(Image, f"~/{name}/overlay", qos.results())
        self._camera_info = topics.publisher(CameraInfo, f"~/{name}/camera_info", qos.results())
        self._mask_message = PictureMessage("mono8")
        self._confidence_message = PictureMessage("mono8")
        self._overlay_message = PictureMessage("rgb8")

    def subscribe(self, topics: Topics, reliability: str, on_image: Callable[[Any], None]) -> None:
        """Begin to listen; calibration that came earlier is forgotten."""
        self._calibration = None
        self.reset()
        message_type = CompressedImage if self.settings.transport == "compressed" else Image
        topics.subscription(message_type, self.image_topic, qos.pictures_in(reliability), on_image)
        topics.subscription(CameraInfo, self.info_topic, qos.camera_info_in(), self._on_info)

    def reset(self) -> None:
        """Time has jumped backwards, or the node was inactive."""
        self.gate.reset()
        self._next_overlay_ns = 0

    def warn_once(self, key: str, text: str) -> bool:
        """Log a line the first time that `key` occurs; returns whether it is the first."""
        if key in self._told or len(self._told) >= MAX_TOLD:
            return False
        self._told.add(key)
        self._logger.warning(f"{self.settings.name}: {text}")
        return True

    def tell_condition(self, fault: Fault) -> None:
        """Raise a lasting fault, and log it when it is new."""
        if self.health.set_condition(fault):
            text = f"{self.settings.name}: {fault}"
            # two lines, because rclpy raises where one line of code logs with two severities
            if fault.level == Level.ERROR:
                self._logger.error(text)
            else:
                self._logger.warning(text)

    def drop(self, counter: str, fault: Fault) -> None:
        """A picture gives no mask; `counter` is dropped_bad or dropped_late."""
        self.health.dropped(counter, fault)
        self._log_now_and_then(fault)

    def reject(self, error: ImageError, message: Any) -> None:
        """The picture of a message cannot be used."""
        level = Level.WARN if error.kind == "bad_image" else Level.ERROR
        fault = Fault(level, error.kind, str(error))
        self.health.dropped("dropped_bad", fault)
        if error.kind == "encoding":
            self.warn_once(f"encoding {encoding_of(message)}", str(fault))
        else:
            self._log_now_and_then(fault)

    def _log_now_and_then(self, fault: Fault) -> None:
        now_ns = time.monotonic_ns()
        if now_ns >= self._next_log_ns.get(fault.kind, 0):
            self._next_log_ns[fault.kind] = now_ns + LOG_PERIOD_NS
            self._logger.warning(f"{self.settings.name}: {fault}")

    def _on_info(self, message: CameraInfo) -> None:
        known = self._calibration
        try:
            found = intrinsics(message, rectified=self._rectified)
            if known is not None and _alike(found, known.intrinsics):
                model = known.model
            else:
                model = CameraModel(found.width, found.height, found.K, found.D, found.model)
        except CalibrationError as error:
            # an invalid one takes the place of a valid one: geometry that may have changed is not used on
            self._calibration = None
            self.health.clear_condition("no_camera_info")
            self.tell_condition(Fault(Level.ERROR, "calibration", str(error)))
            return
        self._calibration = Calibration(message, message.header.frame_id, found, model)
        for kind in ("calibration", "no_camera_info"):
            self.health.clear_condition(kind)

    def note_picture(self, header: Header, encoding: str, picture: np.ndarray) -> None:
        """Look at what a picture says of itself: size, encoding, frame."""
        height, width = picture.shape[:2]
        if self._size not in (None, (height, width)):
            self._logger.info(f"{self.settings.name}: pictures are {width}x{height} from now on")
        self._size = (height, width)
        self.health.describe(encoding, width, height)
        if encoding == "8UC3":
            self.warn_once("8UC3", "encoding 8UC3 says nothing of the colours, taken as bgr8")
        info_frame = "" if self._calibration is None else self._calibration.frame_id
        if info_frame and header.frame_id and _frame(info_frame) != _frame(header.frame_id):
            text = f"camera_info is of frame '{info_frame}', the picture of '{header.frame_id}', which is taken"
            self.warn_once("frame_id", text)
            self.health.note(Fault(Level.WARN, "frame_id", text))

    def publish_result(self, header: Header, result: Segmentation) -> float:
        """Publish mask and, for those who listen, confidence; returns the share of unknown pixels."""
        mask = result.mask
        height, width = mask.shape
        unknown = cv2.compare(mask, UNKNOWN, cv2.CMP_EQ)
        self._mask_message.pixels(header, height, width)[:] = mask
        self._mask.publish(self._mask_message.message)
        if self._confidence.get_subscription_count():
            view = self._confidence_message.pixels(header, height, width)
            # by saturation: 0 where the mask is unknown
            cv2.subtract(result.confidence, unknown, dst=view)
            self._confidence.publish(self._confidence_message.message)
        return cv2.countNonZero(unknown) / mask.size

    def publish_unknown(self, header: Header, height: int, width: int) -> None:
        """Publish a mask that knows nothing, for a picture that the network could not do."""
        self._mask_message.pixels(header, height, width)[:] = UNKNOWN
        self._mask.publish(self._mask_message.message)
        if self._confidence.get_subscription_count():
            self._confidence_message.pixels(header, height, width)[:] = 0
            self._confidence.publish(self._confidence_message.message)

    def publish_camera_info(self, header: Header, height: int, width: int) -> None:
        """Publish the calibration under the picture's header, if it is that of this picture."""
        known = self._calibration
        if known is not None and (known.intrinsics.height, known.intrinsics.width) == (height, width):
            known.message.header = header
            self._camera_info.publish(known.message)

    def publish_overlay(self, header: Header, result: Segmentation, now_ns: int, settings: Settings) -> None:
        """Publish the picture under the colours of the classes, if somebody listens and it is time."""
        if settings.overlay_rate <= 0 or now_ns < self._next_overlay_ns or not self._overlay.get_subscription_count():
            return
        self._next_overlay_ns = now_ns + int(SECOND_NS / settings.overlay_rate)
        height, width = result.mask.shape
        self._overlay_message.pixels(header, height, width)[:] = result.overlay(settings.overlay_alpha)
        self._overlay.publish(self._overlay_message.message)

    def geometry(self, header: Header, height: int, width: int, ground_z: float) -> Geometry | None:
        """Lens and pose for a picture of this size; None, and a fault that lasts, where they are not known."""
        fault = self._geometry_fault(header, height, width)
        for kind in GEOMETRY_FAULTS:
            if fault is None or kind != fault.kind:
                self.health.clear_condition(kind)
        if fault is not None:
            self.tell_condition(fault)
        known, pose = self._calibration, self.settings.pose
        if fault is not None or known is None or pose is None:
            return None
        T = pose_matrix(pose)
        T[2, 3] -= ground_z
        region = self.settings.roi
        return Geometry(known.model if region is None else known.model.cropped(*region), T)

    def _geometry_fault(self, header: Header, height: int, width: int) -> Fault | None:
        name, known = self.settings.name, self._calibration
        if known is None:
            if self.health.has_condition("calibration"):
                return None  # told already, with its reason
            text = f"nothing on {self.info_topic}: publish camera_info, or set grid.enabled to false"
            return Fault(Level.WARN, "no_camera_info", text)
        expected = known.intrinsics
        if (expected.height, expected.width) != (height, width):
            text = f"camera_info is for {expected.width}x{expected.height}, the picture {width}x{height}: they differ"
            return Fault(Level.WARN, "size_mismatch", text)
        if not (header.frame_id or self.settings.frame_id):
            return Fault(Level.WARN, "frame_id", f"pictures name no frame: set {name}.frame_id")
        if self.settings.pose is None:
            text = f"the pose of the camera is not known: set {name}.pose, or grid.enabled to false"
            return Fault(Level.WARN, "no_pose", text)
        return None

    def clear_geometry_faults(self) -> None:
        """Nobody asks for the drivable area any more."""
        for kind in GEOMETRY_FAULTS:
            self.health.clear_condition(kind)


def _resolved(node: Node, parameter: str, topic: str) -> str:
    """Full name of a topic after remapping."""
    try:
        return str(node.resolve_topic_name(topic))
    except RuntimeError as error:  # rclpy's RCLError
        raise ConfigurationError(f"{parameter} is '{topic}': give a valid ROS topic name") from error


def view_of(result: Segmentation, geometry: Geometry, region: Region | None) -> View:
    """A result with the place from which it was seen; of a region, so that its lower edge counts as the view's."""
    mask, confidence = result.mask, result.confidence
    if region is not None:
        mask, confidence = region.cut(mask), region.cut(confidence)
    return View(mask, confidence, geometry.model, geometry.T_ground_camera)


def _alike(one: Intrinsics, other: Intrinsics) -> bool:
    return one[:2] == other[:2] and one[3:] == other[3:] and np.array_equal(one.K, other.K)


def _frame(name: str) -> str:
    return name.removeprefix("/")
