"""One camera of the node: its topics, its calibration, its health."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from mfuser_ros.drivable import CameraModel, View
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.node import interface, qos
from mfuser_ros.node.calibration import Intrinsics, intrinsics
from mfuser_ros.node.camera_output import CameraOutput, Size
from mfuser_ros.node.camera_trouble import TEXTS, CameraWatch
from mfuser_ros.node.health import CameraHealth, Fault, Level
from mfuser_ros.node.images import ImageError, encoding_of
from mfuser_ros.node.lines import one_line
from mfuser_ros.node.poses import POSE_FAULTS, Poses
from mfuser_ros.node.roi import Region
from mfuser_ros.node.settings import CameraSettings, Settings
from mfuser_ros.node.stamps import SECOND_NS, StampGate
from mfuser_ros.node.topics import Topics
from mfuser_ros.vocabulary import Vocabulary

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmentation  # torch is loaded when the node is configured

LOG_PERIOD_NS = 5 * SECOND_NS
MAX_TOLD = 50  # different warnings: a source that sends nonsense must not fill log and memory
GEOMETRY_FAULTS = ("no_camera_info", "size_mismatch", "frame_id", *POSE_FAULTS)
TROUBLE_LEVELS = {"black": Level.ERROR, "frozen": Level.ERROR}  # the others still show something


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
        poses: knows where it is.
        autoware: what the ids mean, for Autoware's mask; None: there is no such mask.

    Raises:
        ConfigurationError: a topic name that cannot be.
    """

    def __init__(
        self,
        node: Node,
        topics: Topics,
        settings: CameraSettings,
        health: CameraHealth,
        poses: Poses,
        autoware: Vocabulary | None = None,
    ) -> None:
        self.settings = settings
        self.health = health
        self.gate = StampGate()
        self._poses = poses
        self._logger = node.get_logger()
        suffix = "/compressed" if settings.transport == "compressed" else ""
        self.image_topic = resolved(node, f"{settings.name}.image_topic", settings.image_topic + suffix)
        beside = self.image_topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
        self.info_topic = resolved(node, f"{settings.name}.info_topic", settings.info_topic or beside)
        base_name = self.image_topic.removesuffix("/compressed").rpartition("/")[2]
        self._rectified = settings.rectified or base_name.startswith("image_rect")
        self._calibration: Calibration | None = None
        self._on_lost: Callable[[], None] = lambda: None
        self._size: Size | None = None
        self._told: set[str] = set()
        self._next_log_ns: dict[str, int] = {}
        self._watch = CameraWatch()
        self.output = CameraOutput(
            topics, settings.name, size=settings.output_size, autoware=autoware, on_mismatch=self._note_mismatch
        )

    def subscribe(
        self, topics: Topics, reliability: str, on_image: Callable[[Any], None], on_lost: Callable[[], None]
    ) -> None:
        """Begin to listen; calibration that came earlier is forgotten.

        Args:
            topics: makes the subscriptions.
            reliability: of the pictures.
            on_image: called with every picture.
            on_lost: called when an invalid CameraInfo has taken the place of a valid one.
        """
        self._calibration = None
        self._on_lost = on_lost
        self._watch.reset()
        self.reset()
        row = interface.COMPRESSED_IMAGE if self.settings.transport == "compressed" else interface.IMAGE

        def take_image(message: Any) -> None:
            self.health.clear_condition("qos")
            on_image(message)

        topics.subscription(
            row, take_image, qos.picture(reliability), topic=self.image_topic, on_mismatch=self._tell_mismatch("qos")
        )
        topics.subscription(
            interface.CAMERA_INFO_IN,
            self._on_info,
            topic=self.info_topic,
            on_mismatch=self._tell_mismatch("qos_camera_info"),
        )

    def reset(self) -> None:
        """Time has jumped backwards, or the node was inactive."""
        self.gate.reset()
        self.output.reset()

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

    def note_picture(self, header: Header, encoding: str, size: Size) -> None:
        """Look at what a picture says of itself: size, encoding, frame."""
        height, width = size
        if self._size not in (None, size):
            self._logger.info(f"{self.settings.name}: pictures are {width}x{height} from now on")
        self._size = size
        self.health.describe(encoding, width, height)
        if encoding == "8UC3":
            self.warn_once("8UC3", "encoding 8UC3 says nothing of the colours, taken as bgr8")
        known = self._calibration
        info_frame = "" if known is None else known.frame_id
        if info_frame and header.frame_id and _frame(info_frame) != _frame(header.frame_id):
            text = f"camera_info is of frame '{info_frame}', the picture of '{header.frame_id}', which is taken"
            self.warn_once("frame_id", text)
            self.health.note(Fault(Level.WARN, "frame_id", text))

    def look_for_trouble(self, picture: np.ndarray, now_ns: int, hold_s: float) -> None:
        """Raise a fault that lasts while the pictures say that the camera itself is in trouble.

        Args:
            picture: uint8 RGB (H, W, 3), the part that is looked at.
            now_ns: a steady clock.
            hold_s: seconds for which the trouble must have lasted.
        """
        found = self._watch.look(picture, now_ns, hold_s=hold_s)
        for kind, text in TEXTS.items():
            if kind == found:
                self.tell_condition(Fault(TROUBLE_LEVELS.get(kind, Level.WARN), kind, text))
            else:
                self.health.clear_condition(kind)

    def publish_camera_info(self, header: Header, size: Size) -> None:
        """Publish the calibration under the picture's header, if it is that of this picture."""
        known = self._calibration
        if known is not None and (known.intrinsics.height, known.intrinsics.width) == size:
            self.output.publish_camera_info(header, known.message, size)

    def geometry(self, header: Header, stamp_ns: int | None, size: Size, settings: Settings) -> Geometry | None:
        """Lens and pose for a picture of this size; None, and a fault that lasts, where they are not known."""
        known = self._calibration
        found = self._geometry(known, header, stamp_ns, size, settings)
        fault = found if isinstance(found, Fault) else None
        for kind in GEOMETRY_FAULTS:
            if fault is None or kind != fault.kind:
                self.health.clear_condition(kind)
        if isinstance(found, Geometry):
            return found
        if fault is not None:
            self.tell_condition(fault)
        return None

    def _geometry(
        self, known: Calibration | None, header: Header, stamp_ns: int | None, size: Size, settings: Settings
    ) -> Geometry | Fault | None:
        name = self.settings.name
        if known is None:
            if self.health.has_condition("calibration"):
                return None  # told already, with its reason
            text = f"nothing on {self.info_topic}: publish camera_info, or set grid.enabled to false"
            return Fault(Level.WARN, "no_camera_info", text)
        expected = known.intrinsics
        if (expected.height, expected.width) != size:
            text = (
                f"camera_info is for {expected.width}x{expected.height}, the picture {size[1]}x{size[0]}: they differ"
            )
            return Fault(Level.WARN, "size_mismatch", text)
        frame = header.frame_id or self.settings.frame_id
        if not frame:
            return Fault(Level.WARN, "frame_id", f"pictures name no frame: set {name}.frame_id")
        pose = self._poses.of(self.settings, frame, stamp_ns, timeout_s=settings.tf_timeout, ground_z=settings.ground_z)
        if isinstance(pose, Fault):
            return pose
        T = pose.copy()
        T[2, 3] -= settings.ground_z
        region = self.settings.roi
        return Geometry(known.model if region is None else known.model.cropped(*region), T)

    @property
    def is_calibrated(self) -> bool:
        """Whether a valid CameraInfo is the newest."""
        return self._calibration is not None

    def clear_geometry_faults(self) -> None:
        """Nobody asks for the drivable area any more."""
        for kind in GEOMETRY_FAULTS:
            self.health.clear_condition(kind)

    def _on_info(self, message: CameraInfo) -> None:
        self.health.clear_condition("qos_camera_info")
        known = self._calibration
        try:
            found = intrinsics(message, rectified=self._rectified)
            if known is not None and _alike(found, known.intrinsics):
                model = known.model
            else:
                model = CameraModel(found.width, found.height, found.K, found.D, found.model)
        except Exception as error:  # numbers at the limit of what a float holds break the lens model elsewhere
            # an invalid one takes the place of a valid one: geometry that may have changed is not used on
            self._calibration = None
            self.health.clear_condition("no_camera_info")
            self.tell_condition(Fault(Level.ERROR, "calibration", one_line(error)))
            if known is not None:
                self._on_lost()
            return
        self._calibration = Calibration(message, message.header.frame_id, found, model)
        for kind in ("calibration", "no_camera_info"):
            self.health.clear_condition(kind)

    def _note_mismatch(self, text: str) -> None:
        self._logger.warning(f"{self.settings.name}: QoS: {text}")
        self.health.note(Fault(Level.WARN, "qos", text))

    def _tell_mismatch(self, kind: str) -> Callable[[str], None]:
        """What a mismatch on an input calls: a fault that lasts until something comes."""

        def tell(text: str) -> None:
            self._note_mismatch(text)
            self.health.set_condition(Fault(Level.WARN, kind, text))

        return tell

    def _log_now_and_then(self, fault: Fault) -> None:
        now_ns = time.monotonic_ns()
        if now_ns >= self._next_log_ns.get(fault.kind, 0):
            self._next_log_ns[fault.kind] = now_ns + LOG_PERIOD_NS
            self._logger.warning(f"{self.settings.name}: {fault}")


def resolved(node: Node, parameter: str, topic: str) -> str:
    """Full name of a topic after remapping.

    Raises:
        ConfigurationError: the value of the parameter is no name of a topic.
    """
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
