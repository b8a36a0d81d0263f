"""A bag through the node, end to end: node and player as two processes over DDS."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mfuser_ros import vocabulary
from mfuser_ros.bags import BagReader, Frame
from mfuser_ros.bags.read import COMPRESSED_IMAGE
from mfuser_ros.drivable import CameraModel
from mfuser_ros.drivable.lanes import LanePose, estimate_lane_pose
from mfuser_ros.errors import CalibrationError, InputError
from mfuser_ros.node.calibration import intrinsics, pose_parameter
from mfuser_ros.node.images import to_rgb
from mfuser_ros.node.player import TIMES, Output, Player
from mfuser_ros.node.process import NodeProcess, isolation
from mfuser_ros.node.recorder import DriveFiles, DriveNotes, DriveRecorder

POSE_FRAMES = 15
"""Pictures that the camera's pose is estimated from, spread evenly over the bag."""

LANE_WIDTH_M = 3.7
"""Of a lane of a US freeway (12 feet)."""

START_DEADLINE_S = 120.0
FRAME_DEADLINE_S = 60.0

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the steps done and the steps in all."""


@dataclass(frozen=True)
class DemoSettings:
    """What to play, and how.

    Attributes:
        bag: to play.
        out: folder for the results.
        topic: pictures to play; None: the only picture topic of the bag.
        roi: x, y, width, height of the part of the picture that is looked at; None: the whole.
        model, device: as the node's parameters.
        frames: play only the first ones; None: all.
        domain_id: ROS domain of the two processes.
    """

    bag: Path
    out: Path
    topic: str | None
    roi: tuple[int, int, int, int] | None
    model: str
    device: str
    frames: int | None
    domain_id: int


@dataclass(frozen=True)
class _Drive:
    """The part of the bag that is played."""

    bag: BagReader
    topic: str
    count: int
    first: Frame
    rate_hz: float

    @property
    def base(self) -> str:
        """Topic without the name of its transport."""
        return self.topic.removesuffix("/compressed")

    @property
    def rectified(self) -> bool:
        """Whether the name of the topic says that the pictures are undistorted."""
        return self.base.rpartition("/")[2].startswith("image_rect")


def run_demo(settings: DemoSettings, progress: Progress) -> DriveFiles:
    """Play a bag into the node and write what it answers.

    Args:
        settings: what to play.
        progress: told of each step.

    Raises:
        InputError: the bag cannot be read, or the results cannot be written.
        NodeError: the node does not start, dies, or does not answer in time.
    """
    logs = settings.out / "log"
    environment = isolation(settings.domain_id, logs)
    os.environ.update(environment)  # the middleware reads it when the player joins the graph
    with ExitStack() as stack:
        drive = _opened(stack.enter_context(BagReader(settings.bag)), settings)
        files = _prepared(settings.out)
        pose, note = _estimate_pose(drive, progress)
        process = stack.enter_context(
            NodeProcess(_parameters(settings, drive, pose), folder=logs, environment=environment)
        )
        outputs: tuple[Output, ...] = ("confidence",) if pose is None else ("confidence", "grid", "contacts")
        player = stack.enter_context(
            Player(
                image_topic=drive.base,
                compressed=drive.first.kind == COMPRESSED_IMAGE,
                outputs=outputs,
                domain_id=settings.domain_id,
                still_alive=process.check,
            )
        )
        progress("node", 0, 1)
        player.wait_for_node(deadline_s=START_DEADLINE_S)
        progress("node", 1, 1)
        title = f"MFuser {Path(settings.model).stem} on {settings.bag.name}"
        recorder = DriveRecorder(
            files, vocabulary.load(), frames=drive.count, rate_hz=drive.rate_hz, title=title, pose_note=note
        )
        with recorder:
            recorder.class_map(player.class_map or "", stamp_ns=drive.first.stamp_ns)
            frames = islice(drive.bag.frames(drive.topic), drive.count)
            for done, answer in enumerate(player.play(frames, deadline_s=FRAME_DEADLINE_S), start=1):
                recorder.add(answer)
                progress("frames", done, drive.count)
        steps = {_step(name): player.times[name] for name in TIMES}
        recorder.write_page(DriveNotes(title, note, _facts(settings, drive, pose, player.diagnostics)), steps)
    return files


def _opened(bag: BagReader, settings: DemoSettings) -> _Drive:
    topic = bag.image_topic(settings.topic)
    count = min(bag.count(topic), settings.frames or bag.count(topic))
    stamps_ns = []
    first = None
    for frame in islice(bag.frames(topic), count):
        first = first or frame
        stamps_ns.append(frame.stamp_ns)
    if first is None:
        raise InputError(f"{settings.bag}: no pictures on {topic}: record the bag again")
    span_s = (stamps_ns[-1] - stamps_ns[0]) / 1e9
    return _Drive(bag, topic, count, first, (len(stamps_ns) - 1) / span_s if span_s > 0 else 1.0)


def _prepared(out: Path) -> DriveFiles:
    """Names of the results; those of an earlier run are removed."""
    files = DriveFiles.below(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file in (files.film, files.page):
            file.unlink(missing_ok=True)
        if (files.masks / "metadata.yaml").exists():
            shutil.rmtree(files.masks)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}): give another folder by --out") from error
    return files


def _estimate_pose(drive: _Drive, progress: Progress) -> tuple[LanePose | None, str]:
    """Pose of the camera, None where it cannot be told, and a line that says where it is from."""
    if drive.first.info is None:
        return None, "No drivable area: the bag has no camera_info."
    in_bag = drive.bag.count(drive.topic)
    step = max(1, in_bag // POSE_FRAMES)
    total = len(range(0, in_bag, step))

    def pictures() -> Iterator[np.ndarray]:
        for done, frame in enumerate(islice(drive.bag.frames(drive.topic), 0, None, step)):
            progress("camera pose", done, total)
            yield to_rgb(frame.message)
        progress("camera pose", total, total)

    try:
        camera = CameraModel(*intrinsics(drive.first.info, rectified=drive.rectified))
        pose = estimate_lane_pose(pictures(), camera, lane_width_m=LANE_WIDTH_M)
    except (CalibrationError, InputError) as error:  # such as a camera_info of another size than the pictures
        return None, f"No drivable area: {error}."
    return pose, (
        f"The camera's pose is an estimate from lane lines, not a calibration: {pose.height_m:.2f} m above the road, "
        f"looking {abs(np.degrees(pose.pitch_rad)):.1f}° {'down' if pose.pitch_rad > 0 else 'up'}, "
        f"if the lane is {LANE_WIDTH_M:g} m wide."
    )


def _parameters(settings: DemoSettings, drive: _Drive, pose: LanePose | None) -> dict[str, Any]:
    parameters: dict[str, Any] = {  # Any: what ROS parameters hold
        "cameras": ["front"],
        "front.image_topic": drive.base,
        "front.transport": "compressed" if drive.first.kind == COMPRESSED_IMAGE else "raw",
        "front.rectified": drive.rectified,
        "input_reliability": "reliable",  # every frame shall be processed
        "model": settings.model,
        "device": settings.device,
        "grid.enabled": pose is not None,
    }
    if settings.roi is not None:
        parameters["front.roi"] = list(settings.roi)
    if pose is not None:
        parameters["front.pose"] = pose_parameter(pose.T_vehicle_camera)
    return parameters


def _step(topic: str) -> str:
    """`preprocess` for `processing_time/preprocess_ms`, `processing` for the whole."""
    return "processing in the node" if topic == TIMES[0] else topic.rpartition("/")[2].removesuffix("_ms")


def _facts(
    settings: DemoSettings, drive: _Drive, pose: LanePose | None, diagnostics: dict[str, str]
) -> dict[str, dict[str, str]]:
    """Tables of the page."""
    first = drive.first
    facts = {
        "Model": {
            "name": diagnostics.get("model", settings.model),
            "weights, SHA-256": diagnostics.get("model_sha256", "not reported"),
            "device": diagnostics.get("device", settings.device),
            "last fault that the node reported": diagnostics.get("last_error") or "none",
        },
        "Recording": {
            "bag": settings.bag.name,
            "topic": drive.topic,
            "optical frame": first.frame_id,
            "frames": f"{drive.count} at {drive.rate_hz:.2f}/s",
        },
    }
    if pose is not None:
        facts["Camera pose (estimate)"] = {
            "height above the road": f"{pose.height_m:.3f} m ± {pose.height_spread_m:.3f}",
            "pitch, positive looks down": _degrees(pose.pitch_rad, pose.pitch_spread_rad),
            "yaw against the lane, positive looks left": _degrees(pose.yaw_rad, pose.yaw_spread_rad),
            "roll": "taken as 0",
            "from": f"lane lines in {pose.frames} pictures, lane of {LANE_WIDTH_M:g} m; ± is the spread over them",
        }
    facts["Environment"] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "system": platform.platform(),
        "Python": platform.python_version(),
        **{name: _version(name) for name in ("mfuser_ros", "torch", "numpy", "opencv-python-headless", "rosbags")},
        "rclpy": _version("rclpy"),
    }
    return facts


def _degrees(angle_rad: float, spread_rad: float) -> str:
    return f"{np.degrees(angle_rad):.2f}° ± {np.degrees(spread_rad):.2f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "processor unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "processor unknown")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed by pip"
