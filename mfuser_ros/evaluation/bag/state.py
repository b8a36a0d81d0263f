"""One camera of a bag while its frames go by: lens, pose, labels, what came before."""

from __future__ import annotations

from typing import Any

import numpy as np

from mfuser_ros.bags.recording import Recorded, Recording
from mfuser_ros.errors import CalibrationError, InputError
from mfuser_ros.evaluation.bag.cameras import Camera, label_source
from mfuser_ros.evaluation.bag.degrade import degrade
from mfuser_ros.evaluation.bag.labels import stamp_of
from mfuser_ros.evaluation.bag.meter import FrameMeter, Measured, Mounting
from mfuser_ros.evaluation.bag.scheme import Grouping
from mfuser_ros.evaluation.bag.settings import BagSettings, Edge
from mfuser_ros.inference.segmenter import Segmenter


class UnusableError(Exception):
    """A picture or a label cannot be used; the text says which and why."""


class CameraState:
    """Measures the frames of one camera in recorded order.

    Attributes:
        info: newest CameraInfo; set it as they come.
        notes: what a reader of the result should know.
        faults: labels that could not be used; their frames count as unlabelled.
    """

    def __init__(
        self, camera: Camera, settings: BagSettings, edge: Edge, segmenter: Segmenter, grouping: Grouping,
        recording: Recording,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            camera: what to measure.
            settings: of the evaluation.
            edge: turns messages into arrays.
            segmenter: the model.
            grouping: what labels mean.
            recording: of the same bag, for this camera's labels and first CameraInfo alone.
        """
        self._camera, self._settings, self._edge, self._grouping = camera, settings, edge, grouping
        self._labels = label_source(camera, recording, round(settings.label_tolerance_s * 1e9))
        self._meter = FrameMeter(segmenter, score_threshold=settings.threshold or 0.0)
        self._pose = None if camera.pose is None else edge.pose_matrix(camera.pose)
        self._rectified = "/image_rect" in camera.topic  # as the node takes it
        self._first_ns: int | None = None
        self._lens: tuple[tuple[Any, ...], Mounting | None] | None = None
        self.notes: set[str] = set()
        self.faults: list[str] = []
        self.info: Any | None = self._first_info(recording)  # Any: rosbags' class is made at run time

    def wants(self, recorded: Recorded) -> bool:
        """Whether a frame lies in the window of the settings; every frame of the topic must be shown to it."""
        stamp_ns = stamp_of(recorded.message)
        if self._first_ns is None:
            self._first_ns = stamp_ns
        time_s = (stamp_ns - self._first_ns) / 1e9
        if recorded.index % self._settings.every:
            return False
        return time_s >= self._settings.start_s and (self._settings.stop_s is None or time_s < self._settings.stop_s)

    def measure(self, recorded: Recorded) -> Measured:
        """Measure a frame.

        Raises:
            UnusableError: its picture does not decode.
            ConfigurationError: a label has an id that the scheme does not map.
        """
        message = recorded.message
        stamp_ns = stamp_of(message)
        try:
            picture = self._edge.to_rgb(message)
        except InputError as error:
            raise UnusableError(f"{recorded.topic}: picture {recorded.index} at {stamp_ns}: {error}") from error
        if self._settings.degrade is not None:
            picture = degrade(picture, self._settings.degrade, recorded.index)
        assert self._first_ns is not None  # `wants` has seen the frame
        time_s = (stamp_ns - self._first_ns) / 1e9
        measured = self._meter.measure(
            picture,
            time_s,
            groups=self._groups(recorded.index, stamp_ns),
            grouping=self._grouping,
            mounting=self._mounting(picture),
        )
        place = {
            "topic": recorded.topic, "index": recorded.index, "stamp_ns": stamp_ns,
            "time_s": time_s, "frame_id": str(message.header.frame_id),
        }  # fmt: skip
        measured.row.update(place)
        return measured

    def _groups(self, index: int, stamp_ns: int) -> np.ndarray | None:
        try:
            label = None if self._labels is None else self._labels.at(index, stamp_ns)
        except InputError as error:
            self.faults.append(str(error))
            return None
        return None if label is None else self._grouping.groups_of(label.ids, label.name)

    def _first_info(self, recording: Recording) -> Any | None:
        if self._pose is None or self._camera.info_topic is None:
            if self._pose is not None:
                self.notes.add(f"{self._camera.topic}: no camera_info beside it, so no drivable area")
            return None
        first = next(recording.messages([self._camera.info_topic]), None)
        return None if first is None else first.message

    def _mounting(self, picture: np.ndarray) -> Mounting | None:
        if self._pose is None or self.info is None:
            return None
        info = self.info
        arrays = (np.asarray(values, np.float64).tobytes() for values in (info.k, info.d, info.p))
        region = (info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height)
        key = (info.width, info.height, info.distortion_model, info.binning_x, info.binning_y, *region, *arrays)
        if self._lens is None or self._lens[0] != key:
            self._lens = key, self._mounted(info)
        mounting = self._lens[1]
        if mounting is None:
            return None
        size = (mounting.camera.height, mounting.camera.width)
        if size != picture.shape[:2]:
            self.notes.add(
                f"{self._camera.topic}: camera_info is for {size[1]}x{size[0]}, "
                f"a picture {picture.shape[1]}x{picture.shape[0]}: no drivable area there"
            )
            return None
        return mounting

    def _mounted(self, info: Any) -> Mounting | None:
        assert self._pose is not None
        try:
            return Mounting(self._edge.camera(info, rectified=self._rectified), self._pose)
        except CalibrationError as error:
            self.notes.add(f"{self._camera.topic}: no drivable area: {error}")
            return None
