"""What one evaluation of a bag is asked for: plain data that can travel to another process and be hashed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mfuser_ros.drivable import CameraModel
from mfuser_ros.evaluation.bag.degrade import Weather
from mfuser_ros.evaluation.bag.scheme import LabelScheme

Pose = tuple[float, float, float, float, float, float]
"""x, y, z in metres, roll, pitch, yaw in radians about fixed axes: the optical frame in the vehicle's."""


class BagSettings(BaseModel):
    """How bags are evaluated.

    Attributes:
        model: name in models/ or path of a .safetensors file.
        device: auto, cpu, cuda or cuda:N.
        vocabulary: path of a vocabulary YAML; None: the model's own.
        threshold: less probable pixels are unknown, in scores too; None: the model's own, and none in scores.
        size: height and width that the network sees; None: the model's own.
        topics: picture topics; empty: all that hold camera pictures.
        labels: topic, folder, "auto" (the topic `label` beside the camera's) or "none", by picture topic; the entry ""
            holds for the others.
        scheme: what label ids mean; None: what the bag says, or the vocabulary's ids.
        label_tolerance_s: how far the stamps of frame and label may be apart.
        poses: of cameras by picture topic; the entry "" holds for the others.
        start_s: frames stamped earlier after the first of their topic are left out.
        stop_s: frames stamped at or after this time after the first are left out; None: none is.
        every: of the frames of a topic only those whose index is a multiple are looked at.
        degrade: weather that frames are seen through, see `mfuser_ros.evaluation.bag.degrade`; None: as recorded.
        threads: of torch and OpenCV on a CPU; the last digits depend on it. None: as many as the process would use.
        stills: how many frames the report can show for a topic.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "small"
    device: str = "auto"
    vocabulary: str | None = None
    threshold: float | None = Field(default=None, ge=0, le=1)
    size: tuple[int, int] | None = None
    topics: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=lambda: {"": "auto"})
    scheme: LabelScheme | None = None
    label_tolerance_s: float = Field(default=0.005, ge=0)
    poses: dict[str, Pose] = Field(default_factory=dict)
    start_s: float = 0.0
    stop_s: float | None = None
    every: int = Field(default=1, ge=1)
    degrade: Weather | None = None
    threads: int | None = Field(default=None, ge=1)
    stills: int = Field(default=60, ge=0)

    @property
    def is_windowed(self) -> bool:
        """Whether some frames are left out for their time."""
        return self.start_s > 0 or self.stop_s is not None


class LensReading(Protocol):
    """CameraInfo -> the lens of the published pictures."""

    def __call__(self, info: Any, *, rectified: bool) -> CameraModel:  # Any: rosbags' classes are made at run time
        """The lens; `rectified`: the pictures are undistorted already."""


class Edge(NamedTuple):
    """What turns messages into arrays; it belongs to the node's edge, which lies above this package."""

    to_rgb: Callable[[Any], np.ndarray]  # Image or CompressedImage -> uint8 RGB (H, W, 3)
    camera: LensReading  # CameraInfo -> the lens of the published pictures
    pose_matrix: Callable[[Pose], np.ndarray]  # -> (4, 4) optical frame to vehicle frame
