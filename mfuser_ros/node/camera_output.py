"""What the node publishes of one camera: mask, confidence, overlay, camera_info."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from mfuser_ros.node import interface
from mfuser_ros.node.autoware import class_table, run_lengths
from mfuser_ros.node.calibration import resized_info
from mfuser_ros.node.outgoing import PictureMessage, bytes_of
from mfuser_ros.node.settings import Settings
from mfuser_ros.node.stamps import SECOND_NS
from mfuser_ros.node.topics import Topics
from mfuser_ros.vocabulary import UNKNOWN, Vocabulary

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmentation  # torch is loaded when the node is configured

Size = tuple[int, int]  # height, width


class CameraOutput:
    """The topics `~/<cam>/…` while the node is configured.

    Args:
        topics: makes the publishers.
        name: of the camera.
        size: of everything that is published; None: that of the picture.
        autoware: what the ids mean, for Autoware's mask; None: there is no such mask.
        on_mismatch: called with one line when a subscriber's QoS does not fit.
    """

    def __init__(
        self,
        topics: Topics,
        name: str,
        *,
        size: Size | None,
        autoware: Vocabulary | None,
        on_mismatch: Callable[[str], None],
    ) -> None:
        rows = [interface.MASK, interface.CONFIDENCE, interface.OVERLAY, interface.CAMERA_INFO]
        self._mask, self._confidence, self._overlay, self._camera_info = (
            topics.publisher(row.named(name), on_mismatch=on_mismatch) for row in rows
        )
        self._mask_rle = None
        if autoware is not None:
            self._mask_rle = topics.publisher(interface.MASK_RLE.named(name), on_mismatch=on_mismatch)
            self._autoware_class = class_table(autoware)
        self._size = size
        self._mask_message = PictureMessage("mono8")
        self._confidence_message = PictureMessage("mono8")
        self._overlay_message = PictureMessage("rgb8")
        self._resized: tuple[CameraInfo, CameraInfo] | None = None
        self._next_overlay_ns = 0

    def reset(self) -> None:
        """Time has jumped backwards, or the node was inactive."""
        self._next_overlay_ns = 0

    def publish_result(self, header: Header, result: Segmentation) -> float:
        """Publish mask and, for those who listen, confidence; returns the share of unknown pixels."""
        result = self._fitted(result)
        mask = result.mask
        height, width = mask.shape
        unknown = cv2.compare(mask, UNKNOWN, cv2.CMP_EQ)
        self._mask_message.pixels(header, height, width)[:] = mask
        self._publish_mask()
        if self._confidence.get_subscription_count():
            view = self._confidence_message.pixels(header, height, width)
            # by saturation: 0 where the mask is unknown
            cv2.subtract(result.confidence, unknown, dst=view)
            self._confidence.publish(self._confidence_message.message)
        return cv2.countNonZero(unknown) / mask.size

    def publish_unknown(self, header: Header, size: Size) -> None:
        """Publish a mask that knows nothing, for a picture of this size that the network could not do."""
        height, width = self._size or size
        self._mask_message.pixels(header, height, width)[:] = UNKNOWN
        self._publish_mask()
        if self._confidence.get_subscription_count():
            self._confidence_message.pixels(header, height, width)[:] = 0
            self._confidence.publish(self._confidence_message.message)

    def publish_camera_info(self, header: Header, message: CameraInfo, size: Size) -> None:
        """Publish the calibration of a picture of this size under its header."""
        if self._size not in (None, size):
            if self._resized is None or self._resized[0] is not message:
                self._resized = (message, resized_info(message, *self._size))
            message = self._resized[1]
        message.header = header
        self._camera_info.publish(message)

    def publish_overlay(self, header: Header, result: Segmentation, now_ns: int, settings: Settings) -> None:
        """Publish the picture under the colours of the classes, if somebody listens and it is time."""
        if settings.overlay_rate <= 0 or now_ns < self._next_overlay_ns or not self._overlay.get_subscription_count():
            return
        self._next_overlay_ns = now_ns + int(SECOND_NS / settings.overlay_rate)
        result = self._fitted(result)
        height, width = result.mask.shape
        picture = result.picture
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        colours = replace(result, picture=picture).overlay(settings.overlay_alpha)
        self._overlay_message.pixels(header, height, width)[:] = colours
        self._overlay.publish(self._overlay_message.message)

    def _publish_mask(self) -> None:
        message = self._mask_message.message
        self._mask.publish(message)
        if self._mask_rle is not None and self._mask_rle.get_subscription_count():
            height, width = message.height, message.width
            classes = self._autoware_class[self._mask_message.pixels(message.header, height, width)]
            runs = Image(header=message.header, height=height, width=width, step=width, encoding="mono8")
            runs.data = bytes_of(run_lengths(classes))
            self._mask_rle.publish(runs)

    def _fitted(self, result: Segmentation) -> Segmentation:
        """The result at the size that is published; ids must not mix, so each pixel takes the nearest one."""
        if self._size in (None, result.mask.shape):
            return result
        height, width = self._size
        mask, confidence = (
            cv2.resize(part, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            for part in (result.mask, result.confidence)
        )
        return replace(result, mask=mask, confidence=confidence, labels=mask)
