"""`mfuser bag`: make a bag from a video or pictures, say what is in a bag."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfuser_ros.errors import InputError

if TYPE_CHECKING:
    import numpy as np

app = typer.Typer(help="Make a bag from a video or pictures, say what is in a bag.", no_args_is_help=True)

PICTURES_PER_S = 10.0
"""Rate of a folder of pictures where none is given."""

START_S = 1_700_000_000.0
"""Stamp of the first frame where none is given: any fixed moment, so that the same command makes the same bag."""


class Storage(str, Enum):
    """Storage plugins of rosbag2."""

    mcap = "mcap"
    sqlite3 = "sqlite3"


@app.command()
def make(
    source: Annotated[Path, typer.Argument(metavar="VIDEO|FOLDER", help="A video, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="Bag folder to make.")],
    start: Annotated[int, typer.Option(min=0, help="First frame to take, from 0.")] = 0,
    stop: Annotated[int | None, typer.Option(min=1, help="Frame to stop before; none: to the end.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every Nth frame.")] = 1,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Frames per second of the source; none: as the video says, 10 for pictures."),
    ] = None,
    camera_info: Annotated[
        Path | None,
        typer.Option(help="Camera calibration YAML (ROS camera_calibration) to record beside the pictures."),
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

    Example: mfuser bag make drive.mp4 --out drive --stop 225 --every 3 --camera-info camera.yaml
    """
    from mfuser_ros.bags import load_calibration, make_bag  # noqa: PLC0415  heavy imports only where a verb needs them

    source_rate, pictures = _open(source)
    if not (rate or source_rate):
        raise InputError(f"{source}: does not say how many frames it has per second: give --rate")
    made = make_bag(
        islice(pictures, start, stop, every),
        out,
        period_ns=round(every / (rate or source_rate) * 1e9),
        start_ns=round(start_time * 1e9),
        image_topic=topic,
        frame_id=frame_id,
        calibration=None if camera_info is None else load_calibration(camera_info),
        jpeg_quality=None if raw else jpeg_quality,
        storage=storage.value,
    )
    if not quiet:
        topics = ", ".join(name for name in (made.picture_topic, made.info_topic) if name)
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


def _open(source: Path) -> tuple[float, Iterator[np.ndarray]]:
    """Rate in frames per second and the RGB pictures of a video or a folder."""
    from mfuser_ros.datasets import pictures, video  # noqa: PLC0415

    if source.is_dir():
        return PICTURES_PER_S, map(pictures.read_picture, pictures.find_pictures(source))
    return video.info(source).rate_hz, (frame.picture for frame in video.frames(source))
