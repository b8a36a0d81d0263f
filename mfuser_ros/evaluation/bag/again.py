"""Look at some frames of a bag once more, as an evaluation has seen them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mfuser_ros.bags.read import CAMERA_INFO
from mfuser_ros.bags.recording import Recording
from mfuser_ros.evaluation.bag.cameras import find_cameras, scheme_of
from mfuser_ros.evaluation.bag.meter import Measured
from mfuser_ros.evaluation.bag.scheme import group
from mfuser_ros.evaluation.bag.settings import BagSettings, Edge
from mfuser_ros.evaluation.bag.state import CameraState, UnusableError
from mfuser_ros.inference.segmenter import Segmenter

Place = tuple[str, int]
"""Topic and index of a frame."""


def look_again(
    bag: Path, places: Collection[Place], settings: BagSettings, edge: Edge, segmenter: Segmenter
) -> dict[Place, Measured]:
    """Measure chosen frames of a bag; those that cannot be used are left out.

    Raises:
        InputError: the bag cannot be read.
    """
    found: dict[Place, Measured] = {}
    with Recording(bag) as recording, Recording(bag) as beside:
        cameras = find_cameras(bag, recording.topics(), settings)
        grouping = group(scheme_of(cameras, beside, settings, segmenter.vocabulary), segmenter.vocabulary)
        wanted = [camera for camera in cameras if any(topic == camera.topic for topic, _ in places)]
        states = {}
        for camera in wanted:
            states[camera.topic] = CameraState(camera, settings, edge, segmenter, grouping, Recording(bag))
        infos = {camera.info_topic: states[camera.topic] for camera in wanted if camera.info_topic}
        for recorded in recording.messages([*states, *infos]):
            place = (recorded.topic, recorded.index)
            if recorded.kind == CAMERA_INFO:
                infos[recorded.topic].info = recorded.message
            elif states[recorded.topic].wants(recorded) and place in places:
                try:
                    found[place] = states[recorded.topic].measure(recorded)
                except UnusableError:
                    continue
                if len(found) == len(places):
                    break
    return found
