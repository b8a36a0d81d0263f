"""Which topics of a bag are cameras, and where the labels, intrinsics and pose of each are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mfuser_ros.bags.read import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, Topic
from mfuser_ros.bags.recording import Recording
from mfuser_ros.errors import InputError
from mfuser_ros.evaluation.bag.labels import FolderLabels, LabelSource, TopicLabels
from mfuser_ros.evaluation.bag.scheme import LabelScheme, own_scheme, parse_scheme
from mfuser_ros.evaluation.bag.settings import BagSettings, Pose
from mfuser_ros.vocabulary import Vocabulary

NO_CAMERAS = ("label", "mask", "confidence", "overlay", "depth", "compressedDepth")
"""Names that say that a picture topic holds no camera pictures."""

STRING = "std_msgs/msg/String"


@dataclass(frozen=True)
class Camera:
    """One picture topic and what belongs to it.

    Attributes:
        topic: of the pictures.
        frames: how many the bag says there are; 0 where it does not say.
        info_topic: of CameraInfo, if any.
        labels: topic or folder of labels, if any.
        scheme_topic: latched JSON that says what the labels mean, if any.
        pose: of the camera, if any.
    """

    topic: str
    frames: int
    info_topic: str | None
    labels: str | None
    scheme_topic: str | None
    pose: Pose | None


def find_cameras(path: Path, topics: Sequence[Topic], settings: BagSettings) -> list[Camera]:
    """The cameras to evaluate, in the order of their names.

    Raises:
        InputError: a topic that was asked for is not there, or there is none; the text lists what there is.
    """
    kinds = {topic.name: topic.kind for topic in topics}
    counts = {topic.name: topic.messages for topic in topics}
    pictures = [name for name, kind in kinds.items() if kind in (IMAGE, COMPRESSED_IMAGE)]
    listed = ", ".join(pictures) or "none"
    missing = [topic for topic in settings.topics if topic not in pictures]
    if missing:
        raise InputError(f"{path}: no picture topic {missing[0]}: topics with pictures: {listed}")
    named = [value for value in settings.labels.values() if value in kinds]
    chosen = sorted(settings.topics) or [name for name in pictures if name not in named and _is_camera(name)]
    if not chosen:
        raise InputError(f"{path}: no topic with camera pictures (topics with pictures: {listed}): name one by --topic")
    return [_camera(path, name, counts[name], kinds, settings) for name in chosen]


def label_source(camera: Camera, recording: Recording, tolerance_ns: int) -> LabelSource | None:
    """Opens the labels of a camera; `recording` must be one that nobody else reads."""
    if camera.labels is None:
        return None
    if any(topic.name == camera.labels for topic in recording.topics()):
        return TopicLabels(recording, camera.labels, tolerance_ns)
    return FolderLabels(Path(camera.labels), tolerance_ns)


def scheme_of(
    cameras: Sequence[Camera], recording: Recording, settings: BagSettings, vocabulary: Vocabulary
) -> LabelScheme:
    """What the ids of the labels mean: as the settings say, as the bag says, or the vocabulary's own ids.

    Raises:
        InputError: two cameras of the bag have labels of two schemes.
        ConfigurationError: what the bag says is no scheme.
    """
    if settings.scheme is not None:
        return settings.scheme
    found = []
    for camera in cameras:
        if camera.labels is not None and camera.scheme_topic is not None:
            for recorded in recording.messages([camera.scheme_topic]):
                source = f"{recording.path}: {camera.scheme_topic}"
                try:
                    content = json.loads(recorded.message.data)
                except ValueError as error:
                    raise InputError(f"{source}: is no JSON ({error}): give the scheme by --scheme") from error
                found.append(parse_scheme(content, source))
                break
    if any(scheme != found[0] for scheme in found[1:]):
        raise InputError(f"{recording.path}: its cameras have labels of different schemes: evaluate one --topic a time")
    return found[0] if found else own_scheme(vocabulary)


def label_topic(image_topic: str) -> str:
    """Where labels of a picture topic are recorded: /front/label for /front/image_raw/compressed."""
    return f"{image_topic.removesuffix('/compressed').rpartition('/')[0]}/label"


def scheme_topic(labels: str) -> str:
    """Where a label topic says what its ids mean."""
    return f"{labels}/scheme"


def of_topic(values: Mapping[str, str], topic: str) -> str | None:
    """The value for a topic, or the one for all others."""
    return values.get(topic, values.get(""))


def _camera(path: Path, name: str, frames: int, kinds: Mapping[str, str], settings: BagSettings) -> Camera:
    beside = f"{name.removesuffix('/compressed').rpartition('/')[0]}/camera_info"
    labels = of_topic(settings.labels, name)
    if labels == "auto":
        labels = label_topic(name) if label_topic(name) in kinds else None
    elif labels == "none":
        labels = None
    elif labels is not None and labels not in kinds and not Path(labels).is_dir():
        raise InputError(f"{path}: {labels}: neither a topic of the bag nor a folder: name the labels of {name}")
    says = scheme_topic(labels) if labels is not None else None
    return Camera(
        topic=name,
        frames=frames,
        info_topic=beside if kinds.get(beside) == CAMERA_INFO else None,
        labels=labels,
        scheme_topic=says if says is not None and kinds.get(says) == STRING else None,
        pose=settings.poses.get(name, settings.poses.get("")),
    )


def _is_camera(topic: str) -> bool:
    return not set(NO_CAMERAS) & set(topic.split("/"))
