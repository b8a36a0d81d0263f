"""`mfuser bag`: make a bag from a video, pictures or a data set, say what is in a bag."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuser_ros.commands import bag_sources
from mfuser_ros.commands.progress import track
from mfuser_ros.errors import InputError

if TYPE_CHECKING:
    from mfuser_ros.bags import Shot


class _MakeUnlessTold(typer.core.TyperGroup):
    """Takes `mfuser bag SOURCE OUT` for `mfuser bag make SOURCE OUT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: typer's own context
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_MakeUnlessTold,
    help="Make a bag from a video, pictures or a data set, say what is in a bag.",
    no_args_is_help=True,
)

START_S = 1_700_000_000.0
"""Stamp of the first frame where none is given: any fixed moment, so that the same command makes the same bag."""


class Storage(str, Enum):
    """Storage plugins of rosbag2."""

    mcap = "mcap"
    sqlite3 = "sqlite3"


@app.command()
def make(
    source: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO|FOLDER|SET/SPLIT",
            help="A video; a folder of pictures, or of a data set as published; camvid/dusk with --data.",
        ),
    ],
    out_folder: Annotated[Path | None, typer.Argument(metavar="[OUT]", help="Bag folder to make.")] = None,
    out: Annotated[Path | None, typer.Option(help="The same as OUT.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data sets, for SET/SPLIT.")] = None,
    start: Annotated[int, typer.Option(min=0, help="First frame to take, from 0.")] = 0,
    stop: Annotated[int | None, typer.Option(min=1, help="Frame to stop before; none: to the end.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every Nth frame.")] = 1,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Frames per second of the source; none: as the video says, 10 for pictures."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder of label PNGs, named like the pictures of the FOLDER.")
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="What the ids of --labels mean: a set of config/datasets or a YAML.")
    ] = None,
    camera_info: Annotated[
        Path | None,
        typer.Option(help="Camera calibration YAML (ROS camera_calibration) to record beside the pictures."),
    ] = None,
    hfov: Annotated[
        float | None, typer.Option(help="Instead of it: horizontal field of view of a camera without distortion (deg).")
    ] = None,
    topic: Annotated[str, typer.Option(help="Image topic; JPEG frames go to TOPIC/compressed.")] = "/front/image_raw",
    frame_id: Annotated[str, typer.Option(help="Optical frame of the camera.")] = "front_camera_optical_frame",
    jpeg_quality: Annotated[int, typer.Option(min=1, max=100, help="Of the recorded JPEG frames.")] = 85,
    raw: Annotated[bool, typer.Option("--raw", help="Record raw rgb8 pictures instead of JPEG.")] = False,
    start_time: Annotated[float, typer.Option(help="Stamp of the first frame, seconds since 1970.")] = START_S,
    storage: Annotated[Storage, typer.Option(help="Storage of the bag.")] = Storage.mcap,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing.")] = False,
) -> None:
    """Make a bag of one camera. Frame i is stamped START_TIME + i * EVERY / RATE.

    The word make may be left out. Labels go to a topic `label` beside the image topic, and what their ids mean is
    latched on `label/scheme`; pictures of data sets are recorded as they lie, without a second compression.

    Example: mfuser bag make drive.mp4 --out drive --stop 225 --every 3 --camera-info camera.yaml
    Example: mfuser bag camvid/dusk dusk_bag --data data --rate 1
    """
    from mfuser_ros.bags import load_calibration, make_bag  # noqa: PLC0415  heavy imports only where a verb needs them

    target = out or out_folder
    if target is None or (out is not None and out_folder is not None):
        raise InputError(f"{source}: where to? give one bag folder, as OUT or by --out")
    if camera_info is not None and hfov is not None:
        raise InputError("--camera-info and --hfov: both state intrinsics: give one of them")
    opened = bag_sources.open_source(source, data, labels, scheme)
    if not (rate or opened.rate_hz):
        raise InputError(f"{source}: does not say how many frames it has per second: give --rate")
    shots: Iterator[Shot] = islice(opened.shots, start, stop, every)
    calibration = None if camera_info is None else load_calibration(camera_info)
    if hfov is not None:
        shots, calibration = bag_sources.with_view(shots, hfov)
    made = make_bag(
        track(shots, total=None, what="frames", quiet=quiet),
        target,
        period_ns=round(every / (rate or opened.rate_hz) * 1e9),
        start_ns=round(start_time * 1e9),
        image_topic=topic,
        frame_id=frame_id,
        calibration=calibration,
        jpeg_quality=None if raw else jpeg_quality,
        storage=storage.value,
        scheme=opened.scheme,
    )
    if not quiet:
        topics = ", ".join(name for name in (made.picture_topic, made.info_topic, made.label_topic) if name)
        print(f"{made.path}: {made.frames} frames on {topics}")


@app.command()
def info(
    bag: Annotated[Path, typer.Argument(metavar="BAG", help="Bag folder, or a bare .mcap or .db3 file.")],
) -> None:
    """List topics, types, message counts and the time span of a bag.

    Example: mfuser bag info test/data/highway
    """
    from rich.console import Console  # noqa: PLC0415  heavy imports only where a verb needs them
    from rich.table import Table  # noqa: PLC0415

    from mfuser_ros.bags import BagReader  # noqa: PLC0415

    with BagReader(bag) as reader:
        topics = reader.topics()
        first_ns, last_ns = reader.span_ns()
    count = sum(topic.messages for topic in topics)
    print(f"{bag}: {(last_ns - first_ns) / 1e9:.3f} s from {first_ns / 1e9:.3f}, {count} messages")
    table = Table("topic", "type", "messages", box=None)
    for topic in topics:
        table.add_row(topic.name, topic.kind, str(topic.messages))
    Console(soft_wrap=True).print(table)
