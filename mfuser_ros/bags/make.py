"""Make a bag of one camera from pictures that have no ROS stamps: a film, a folder, a data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mfuser_ros.bags.calibration import CameraCalibration
from mfuser_ros.bags.write import BagWriter, Storage
from mfuser_ros.errors import CalibrationError, InputError

_PNG = b"\x89PNG"


class Shot(NamedTuple):
    """One picture of the camera."""

    picture: np.ndarray  # uint8 RGB (H, W, 3)
    encoded: bytes | None = None  # JPEG or PNG file of the picture, recorded as it is
    label: np.ndarray | None = None  # uint8 (H, W) ids


class MadeBag(NamedTuple):
    """What `make_bag` wrote."""

    path: Path
    frames: int
    picture_topic: str
    info_topic: str | None
    label_topic: str | None = None


def make_bag(
    shots: Iterable[Shot],
    path: str | Path,
    *,
    period_ns: int,
    start_ns: int,
    image_topic: str = "/front/image_raw",
    frame_id: str = "front_camera_optical_frame",
    calibration: CameraCalibration | None = None,
    jpeg_quality: int | None = 85,
    storage: Storage = "mcap",
    scheme: str | None = None,
) -> MadeBag:
    """Write `shots` as the recording of one camera; frame i is stamped `start_ns + i * period_ns`.

    Args:
        shots: pictures, all of one size.
        path: bag folder to make.
        period_ns: time from one frame to the next, nanoseconds.
        start_ns: stamp of the first frame, nanoseconds.
        image_topic: raw topic name; JPEG frames go to `<image_topic>/compressed`, intrinsics to its sibling
            `camera_info`.
        frame_id: optical frame of the camera; a frame that `calibration` states must agree.
        calibration: intrinsics to record with every frame; none, no camera_info topic.
        jpeg_quality: 1 to 100, of pictures that are not encoded already; None records raw rgb8.
        storage: of the bag.
        scheme: JSON that says what the ids of labels mean, latched beside the topic of the labels.

    Raises:
        InputError: no pictures, pictures of two sizes, or a path that exists or cannot be written.
        CalibrationError: the intrinsics hold for another picture size or state another frame.
    """
    if calibration is not None and calibration.frame_id not in ("", frame_id):
        raise CalibrationError(
            f"camera calibration is of frame {calibration.frame_id}, the bag's is {frame_id}: give one of them"
        )
    topic = f"{image_topic}/compressed" if jpeg_quality is not None else image_topic
    beside = image_topic.rpartition("/")[0]
    info_topic = f"{beside}/camera_info" if calibration is not None else None
    labels = f"{beside}/label"
    label_topic = None
    size: tuple[int, ...] | None = None
    count = 0
    with BagWriter(path, storage=storage) as bag:
        for picture, encoded, label in shots:
            stamp_ns = start_ns + count * period_ns
            if size is None:
                _check_size(picture, calibration)
                size = picture.shape
            elif picture.shape != size:
                raise InputError(
                    f"picture {count} is {_size(picture.shape)}, the first was {_size(size)}: give one size"
                )
            if calibration is not None and info_topic is not None:
                bag.camera_info(
                    info_topic, replace(calibration, frame_id=frame_id), stamp_ns=stamp_ns, frame_id=frame_id
                )
            if jpeg_quality is None:
                bag.image(topic, picture, encoding="rgb8", stamp_ns=stamp_ns, frame_id=frame_id)
            else:
                file = jpeg(picture, quality=jpeg_quality) if encoded is None else encoded
                codec = "png" if file.startswith(_PNG) else "jpeg"
                form = f"rgb8; {codec} compressed bgr8"
                bag.compressed_image(topic, file, form=form, stamp_ns=stamp_ns, frame_id=frame_id)
            if label is not None:
                if label_topic is None and scheme is not None:
                    bag.latched_text(f"{labels}/scheme", scheme, stamp_ns=stamp_ns)
                label_topic = labels
                bag.mask(label_topic, label, stamp_ns=stamp_ns, frame_id=frame_id)
            count += 1
        if not count:
            raise InputError(f"{path}: no pictures to write: widen --start and --stop or give another input")
    return MadeBag(Path(path), count, topic, info_topic, label_topic)


def jpeg(picture: np.ndarray, *, quality: int) -> bytes:
    """JPEG file of a uint8 RGB (H, W, 3) picture, quality 1 to 100 as in libjpeg."""
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InputError(
            f"a picture of shape {picture.shape} cannot be written as JPEG: give at most 65500 pixels a side"
        )
    return bytes(encoded)


def _check_size(picture: np.ndarray, calibration: CameraCalibration | None) -> None:
    height, width = picture.shape[:2]
    if calibration is not None and (calibration.width, calibration.height) != (width, height):
        raise CalibrationError(
            f"camera calibration is for {calibration.width}x{calibration.height}, pictures are {width}x{height}: "
            "give the calibration of this camera and size"
        )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
