"""Write bags that `ros2 bag play` and every rosbag2 reader open: pictures, calibrations, masks, latched text."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_typestore

from mfuser_ros.bags.calibration import CameraCalibration
from mfuser_ros.bags.qos import LATCHED, RELIABLE, SENSOR
from mfuser_ros.errors import InputError

Storage = Literal["mcap", "sqlite3"]
Encoding = Literal["rgb8", "bgr8", "rgba8", "bgra8", "mono8"]

CHANNELS: dict[str, int] = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
"""Bytes per pixel of the image encodings that bags are written in."""

_PLUGINS = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}


class BagWriter:
    """A new bag, filed by header stamp so that play-back keeps the time of the pictures; an error within leaves no bag.

    ```python
    with BagWriter("drive") as bag:
        bag.image("/front/image_raw", picture, encoding="rgb8", stamp_ns=0, frame_id="front_camera_optical_frame")
    ```
    """

    def __init__(self, path: str | Path, *, storage: Storage = "mcap", compress: bool = False) -> None:
        """Prepare the bag folder `path`; it is made when the `with` block is entered.

        Args:
            path: folder to make.
            storage: plugin of rosbag2.
            compress: with zstd: masks shrink to a hundredth, JPEGs do not. MCAP only, as sqlite3 has no chunks.

        Raises:
            InputError: the path exists already, or `compress` with sqlite3.
        """
        self.path = Path(path)
        self._types = get_typestore(Stores.ROS2_JAZZY)
        try:
            self._writer = Writer(self.path, version=Writer.VERSION_LATEST, storage_plugin=_PLUGINS[storage])
        except WriterError as error:
            raise InputError(f"{self.path}: exists already: give another path or delete it first") from error
        if compress:
            if storage != "mcap":
                raise InputError(f"{self.path}: {storage} bags are not compressed: choose the storage mcap")
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer.open()
        except (OSError, WriterError) as error:
            raise InputError(f"{self.path}: cannot be written ({error}): give a folder that can be") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, traceback)
        if error is not None:
            shutil.rmtree(self.path, ignore_errors=True)  # half a bag would only block the next attempt

    def image(self, topic: str, picture: np.ndarray, *, encoding: Encoding, stamp_ns: int, frame_id: str) -> None:
        """Add a sensor_msgs/Image.

        Args:
            topic: absolute topic name.
            picture: uint8 (H, W) for mono8, else (H, W, channels of `encoding`).
            encoding: of the pixels.
            stamp_ns: time of the header and of the bag, nanoseconds.
            frame_id: optical frame.

        Raises:
            InputError: shape or type of `picture` contradicts `encoding`.
        """
        channels = CHANNELS[encoding]
        wanted = (2,) if channels == 1 else (3,)
        if picture.dtype != np.uint8 or (picture.ndim,) != wanted or (channels > 1 and picture.shape[2] != channels):
            raise InputError(
                f"{topic}: {encoding} wants uint8 with {channels} channel(s), found {picture.dtype} {picture.shape}"
            )
        height, width = picture.shape[:2]
        message = self._message("sensor_msgs/msg/Image")(
            header=self._header(stamp_ns, frame_id),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=width * channels,
            data=np.ascontiguousarray(picture).reshape(-1),
        )
        self._write(topic, "sensor_msgs/msg/Image", message, stamp_ns, SENSOR)

    def compressed_image(self, topic: str, encoded: bytes, *, form: str, stamp_ns: int, frame_id: str) -> None:
        """Add a sensor_msgs/CompressedImage whose bytes `encoded` are a JPEG or PNG, said by `form` (`jpeg`, `png`)."""
        message = self._message("sensor_msgs/msg/CompressedImage")(
            header=self._header(stamp_ns, frame_id), format=form, data=np.frombuffer(encoded, np.uint8)
        )
        self._write(topic, "sensor_msgs/msg/CompressedImage", message, stamp_ns, SENSOR)

    def camera_info(self, topic: str, calibration: CameraCalibration, *, stamp_ns: int, frame_id: str) -> None:
        """Add a sensor_msgs/CameraInfo with the intrinsics of `calibration`."""
        region = self._message("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        message = self._message("sensor_msgs/msg/CameraInfo")(
            header=self._header(stamp_ns, frame_id),
            height=calibration.height,
            width=calibration.width,
            distortion_model=calibration.distortion_model,
            d=np.asarray(calibration.D, np.float64),
            k=np.asarray(calibration.K, np.float64).reshape(9),
            r=np.asarray(calibration.R, np.float64).reshape(9),
            p=np.asarray(calibration.P, np.float64).reshape(12),
            binning_x=0,
            binning_y=0,
            roi=region,
        )
        self._write(topic, "sensor_msgs/msg/CameraInfo", message, stamp_ns, SENSOR)

    def mask(self, topic: str, mask: np.ndarray, *, stamp_ns: int, frame_id: str) -> None:
        """Add a mask or a confidence: sensor_msgs/Image mono8, offered reliable as the node does. `mask` as `image`."""
        self._connect(topic, "sensor_msgs/msg/Image", RELIABLE)
        self.image(topic, mask, encoding="mono8", stamp_ns=stamp_ns, frame_id=frame_id)

    def latched_text(self, topic: str, text: str, *, stamp_ns: int) -> None:
        """Add a std_msgs/String that late joiners get too, such as the class map."""
        message = self._message("std_msgs/msg/String")(data=text)
        self._write(topic, "std_msgs/msg/String", message, stamp_ns, LATCHED)

    def _message(self, name: str) -> Any:  # Any: rosbags builds the classes of messages at run time
        return self._types.types[name]

    def _header(self, stamp_ns: int, frame_id: str) -> object:
        stamp = self._message("builtin_interfaces/msg/Time")(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return self._message("std_msgs/msg/Header")(stamp=stamp, frame_id=frame_id)

    def _connect(self, topic: str, kind: str, qos: Qos) -> Connection:
        known = self._connections.get(topic)
        if known is None:
            known = self._writer.add_connection(topic, kind, typestore=self._types, offered_qos_profiles=[qos])
            self._connections[topic] = known
        elif known.msgtype != kind:
            raise InputError(f"{self.path}: topic {topic} holds {known.msgtype}, not {kind}: use another topic")
        return known

    def _write(self, topic: str, kind: str, message: object, stamp_ns: int, qos: Qos) -> None:
        connection = self._connect(topic, kind, qos)
        try:
            self._writer.write(connection, stamp_ns, self._types.serialize_cdr(message, kind))
        except (OSError, WriterError) as error:
            raise InputError(f"{self.path}: cannot be written ({error}): free space or give another path") from error
