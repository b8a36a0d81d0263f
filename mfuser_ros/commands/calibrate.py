"""`mfuser calibrate`: a camera's pitch and height from the road in a bag."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfuser_ros.errors import CalibrationError, InputError

if TYPE_CHECKING:
    import numpy as np

    from mfuser_ros.bags import BagReader, Frame
    from mfuser_ros.drivable import CameraModel
    from mfuser_ros.drivable.drift import Drift, PoseEstimate, RoadWatch
    from mfuser_ros.vocabulary import Vocabulary

UNSTATED_POSE = (0.0, 0.0, 1.5, -1.570796, 0.0, -1.570796)
"""A level forward camera: stands in where nobody says how the camera is mounted."""


def calibrate(
    bag: Annotated[Path, typer.Argument(metavar="BAG", help="Bag folder, or a bare .mcap or .db3 file.")],
    topic: Annotated[str | None, typer.Option(help="Picture topic of a bag that has several.")] = None,
    mask_topic: Annotated[
        str | None,
        typer.Option(
            help="Masks (mono8) instead of the model's. Without: the only topic in /mask; empty: run the model."
        ),
    ] = None,
    camera_info: Annotated[
        Path | None, typer.Option(help="Camera calibration YAML instead of the camera_info of the bag.")
    ] = None,
    pose: Annotated[
        str | None,
        typer.Option(help='Pose in use, "x y z roll pitch yaw" (m, rad) of the optical frame. Without: /tf_static.'),
    ] = None,
    base_frame: Annotated[str, typer.Option(help="Vehicle frame that /tf_static is asked for.")] = "base_link",
    name: Annotated[str, typer.Option(help="Name of the camera in the parameter line.")] = "front",
    lane_width: Annotated[float, typer.Option(help="Between the lines of the own lane (m); 0: not known.")] = 3.5,
    road_width: Annotated[
        float, typer.Option(help="Between the edges of the road (m), for roads without lines; 0: not known.")
    ] = 0.0,
    bound: Annotated[float, typer.Option(min=0, help="Largest drift of the pitch (degrees).")] = 1.0,
    height_bound: Annotated[float, typer.Option(min=0, help="Largest drift of the height (m).")] = 0.1,
    frames: Annotated[int, typer.Option(min=3, help="Frames to look at, spread over the bag.")] = 40,
    model: Annotated[str, typer.Option(help="Name in models/ or path of a .safetensors.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    vocabulary: Annotated[Path | None, typer.Option(help="YAML that says what the ids mean.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but the parameter line.")] = False,
) -> None:
    """Estimate a camera's pitch and height from the road in a bag, and say whether the pose in use has drifted.

    Lane lines (else the edges of the road) are parallel on the ground and so give the pitch; their known distance
    gives the height. Drive straight on a flat, marked road. Exit code 1 if the pose in use (--pose or /tf_static) is
    beyond a bound by more than twice the standard error, 2 if the road does not tell.

    Example: mfuser calibrate drive --lane-width 3.7 --pose "1.5 0 1.4 -1.5708 0 -1.5708" --bound 0.5
    """
    from mfuser_ros.bags import BagReader  # noqa: PLC0415  numpy, cv2 and torch are imported where they are used
    from mfuser_ros.commands.progress import track  # noqa: PLC0415
    from mfuser_ros.drivable.drift import RoadWatch  # noqa: PLC0415

    with BagReader(bag) as reader:
        mask_topic = _recorded_masks(reader) if mask_topic is None else mask_topic or None
        looks = _Looks(reader, topic, mask_topic, camera_info, frames)
        stated = _stated_pose(reader, pose, base_frame, looks.frame_id)
        words, mask_of = _masks(model, device, vocabulary, recorded=mask_topic is not None)
        watch = RoadWatch(
            looks.camera,
            _matrix(UNSTATED_POSE) if stated is None else stated,
            words,
            lane_width_m=lane_width or None,
            road_width_m=road_width or None,
            looks=frames,
        )
        for look in track(looks, total=looks.count, what="frames", quiet=quiet):
            mask = look.mask
            if mask is None:
                assert look.picture is not None  # a bag has pictures where it has no masks
                mask = mask_of(look.picture)
            watch.look(mask, look.picture)
    found = watch.estimate()
    if found is None:
        raise CalibrationError(
            f"{bag}: cannot tell: fewer than 3 of {watch.looks} frames show a lane line or an edge of the road on "
            "either side; drive on a marked, fairly straight road, or set the pose by hand"
        )
    drift = None
    if stated is not None:
        drift = watch.drift(pitch_bound_rad=math.radians(bound), height_bound_m=height_bound)
    if not quiet:
        _print_table(found, watch, drift, stated)
    print(_parameter_line(name, found))
    if drift is not None and drift.beyond:
        raise typer.Exit(1)


def _recorded_masks(bag: BagReader) -> str | None:
    """The topic of masks, if there is exactly one that is named as the node names them."""
    from mfuser_ros.bags.read import IMAGE  # noqa: PLC0415

    found = [entry.name for entry in bag.topics() if entry.kind == IMAGE and entry.name.endswith("/mask")]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True, eq=False)
class _Look:
    picture: np.ndarray | None
    mask: np.ndarray | None


class _Looks:
    """Frames spread over the bag: pictures, recorded masks, or both where their stamps agree."""

    def __init__(
        self, bag: BagReader, topic: str | None, mask_topic: str | None, camera_info: Path | None, frames: int
    ) -> None:
        from mfuser_ros.bags.read import COMPRESSED_IMAGE, IMAGE  # noqa: PLC0415
        from mfuser_ros.drivable import CameraModel  # noqa: PLC0415
        from mfuser_ros.node.calibration import intrinsics  # noqa: PLC0415

        self._bag, self._masks = bag, mask_topic
        others = [entry.name for entry in bag.topics() if entry.kind in (IMAGE, COMPRESSED_IMAGE)]
        if mask_topic is not None:
            bag.image_topic(mask_topic)
            others.remove(mask_topic)
        alone = mask_topic is not None and topic is None and len(others) != 1
        self._pictures = None if alone else bag.image_topic(topic or (others[0] if len(others) == 1 else None))
        self._leading = mask_topic or str(self._pictures)
        total = bag.count(self._leading)
        self._step = max(1, total // frames)
        self.count = min(frames, len(range(0, total, self._step)))
        first = next(iter(bag.frames(self._pictures or self._leading)), None)
        if first is None:
            raise InputError(f"{bag.path}: {self._leading} has no messages: record the drive again")
        self.frame_id = first.frame_id
        if camera_info is not None:
            from mfuser_ros.bags import load_calibration  # noqa: PLC0415

            stated = load_calibration(camera_info)
            model = stated.distortion_model or "plumb_bob"
            self.camera: CameraModel = CameraModel(stated.width, stated.height, stated.K, stated.D, model)
        elif first.info is None:
            raise InputError(f"{bag.path}: no camera_info beside {self._leading}: record it or give --camera-info YAML")
        else:
            base = self._leading.removesuffix("/compressed").rpartition("/")[2]
            self.camera = CameraModel(*intrinsics(first.info, rectified=base.startswith("image_rect")))

    def __iter__(self) -> Iterator[_Look]:
        from mfuser_ros.node.images import to_rgb  # noqa: PLC0415

        if self._masks is None:
            for frame in self._chosen(self._leading):
                yield _Look(to_rgb(frame.message), None)
            return
        masks = {frame.stamp_ns: _mono(frame.message, self._masks) for frame in self._chosen(self._masks)}
        pictures = iter(()) if self._pictures is None else self._bag.frames(self._pictures)
        for frame in pictures:
            mask = masks.pop(frame.stamp_ns, None)
            if mask is not None:
                yield _Look(to_rgb(frame.message), mask)
        for mask in masks.values():  # whose pictures were not recorded
            yield _Look(None, mask)

    def _chosen(self, topic: str) -> Iterator[Frame]:
        for frame in self._bag.frames(topic):
            if frame.index % self._step == 0 and frame.index < self._step * self.count:
                yield frame


def _mono(message: object, topic: str) -> np.ndarray:
    import numpy as np  # noqa: PLC0415

    if getattr(message, "encoding", "") not in ("mono8", "8UC1"):
        raise InputError(f"{topic} is {getattr(message, 'encoding', 'compressed')}, not mono8: name a topic of masks")
    height, width, step = int(message.height), int(message.width), int(message.step)  # type: ignore[attr-defined]
    data = np.asarray(message.data, np.uint8)  # type: ignore[attr-defined]
    if width > step or data.size < height * step:
        raise InputError(f"{topic}: a mask of {width}x{height} has {data.size} bytes: record it again")
    return np.ascontiguousarray(data[: height * step].reshape(height, step)[:, :width])


def _masks(
    model: str, device: str, vocabulary: Path | None, *, recorded: bool
) -> tuple[Vocabulary, Callable[[np.ndarray], np.ndarray]]:
    """What the ids mean, and what makes a mask of a picture."""
    if recorded:
        from mfuser_ros import vocabulary as words  # noqa: PLC0415

        def none(_: np.ndarray) -> np.ndarray:
            raise AssertionError("recorded masks need no model")

        return words.load(vocabulary), none
    import mfuser_ros  # noqa: PLC0415

    segmenter = mfuser_ros.load(model, device=device, vocabulary=vocabulary)
    return segmenter.vocabulary, lambda picture: segmenter(picture).mask


def _stated_pose(bag: BagReader, pose: str | None, base_frame: str, camera_frame: str) -> np.ndarray | None:
    from mfuser_ros.commands.mounting import static_pose  # noqa: PLC0415

    if pose is None:
        return static_pose(bag, base_frame, camera_frame)
    try:
        numbers = [float(text) for text in pose.replace(",", " ").strip(" []").split()]
    except ValueError as error:
        raise InputError(f'--pose "{pose}": give six numbers, "x y z roll pitch yaw"') from error
    if len(numbers) != 6:
        raise InputError(f'--pose "{pose}" has {len(numbers)} numbers: give six, "x y z roll pitch yaw"')
    return _matrix(numbers)


def _matrix(pose: Sequence[float]) -> np.ndarray:
    from mfuser_ros.node.calibration import pose_matrix  # noqa: PLC0415

    return pose_matrix(pose)


def _parameter_line(name: str, found: PoseEstimate) -> str:
    from mfuser_ros.node.calibration import pose_parameter  # noqa: PLC0415

    return f"{name}.pose: [{', '.join(f'{value:.4f}' for value in pose_parameter(found.T_vehicle_camera))}]"


def _print_table(found: PoseEstimate, watch: RoadWatch, drift: Drift | None, stated: np.ndarray | None) -> None:
    import numpy as np  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("", "pose in use", "from the road", "spread", "standard error", box=None)
    pitch = "-" if stated is None else f"{np.degrees(np.arcsin(-stated[2, 2])):.2f}"
    spread = np.degrees(found.pitch_spread_rad)
    table.add_row(
        "pitch (degrees, down)",
        pitch,
        f"{np.degrees(found.pitch_rad):.2f}",
        f"{spread:.2f}",
        f"{np.degrees(found.pitch_error_rad):.2f}",
    )
    height = "-" if stated is None else f"{stated[2, 3]:.2f}"
    told = (found.height_m, found.height_spread_m, found.height_error_m)
    table.add_row("height (m)", height, *("-" if value is None else f"{value:.2f}" for value in told))
    console = Console(soft_wrap=True)
    console.print(table)
    if found.height_m is None:
        console.print("height: cannot tell: the distance of the lines is not known (--lane-width, --road-width)")
    console.print(f"from {found.evidence} in {found.frames} of {watch.looks} frames")
    if drift is not None:
        console.print(("beyond the bound: " if drift.beyond else "within the bound: ") + drift.text)
    else:
        console.print("no pose in use is known (--pose, /tf_static), so no drift is judged")
