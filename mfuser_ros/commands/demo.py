"""`mfuser demo`: a bag through the node, over real topics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfuser_ros import share
from mfuser_ros.commands.ros import choose_domain, require_ros
from mfuser_ros.commands.stages import StageDisplay
from mfuser_ros.errors import ConfigurationError, InputError

PACKED_BAG = "test/data/highway"
PACKED_ROI = (0, 0, 1280, 656)  # below it the vehicle's own bonnet hides the road


def demo(
    bag: Annotated[
        Path | None, typer.Argument(metavar="[BAG]", help="Bag to play; none: the drive in the source checkout.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo_output"),
    topic: Annotated[str | None, typer.Option(help="Picture topic, where the bag has several.")] = None,
    roi: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            help="Part of the picture to look at (px), such as all but the bonnet.", metavar="X Y WIDTH HEIGHT"
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Name in models/ or path of a .safetensors.")] = "small",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    frames: Annotated[int | None, typer.Option(min=1, help="Play only the first N frames.")] = None,
    domain_id: Annotated[
        int | None,
        typer.Option(min=0, max=101, help="ROS domain of node and player; none: ROS_DOMAIN_ID, or a free one."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Play a bag into the node over ROS 2 topics and write a film, a bag of masks and a page.

    Example: mfuser demo test/data/highway --out demo_output
    """
    if bag is None:
        bag, roi = _packed_bag(), roi or PACKED_ROI
    require_ros()
    from mfuser_ros.node.demo import DemoSettings, run_demo  # noqa: PLC0415  rclpy, plotly and PyAV take their time

    settings = DemoSettings(bag, out, topic, roi, model, device, frames, choose_domain(domain_id))
    with StageDisplay(quiet) as display:
        files = run_demo(settings, display)
    if not quiet:
        for path in (files.film, files.masks, files.page):
            print(path)


def _packed_bag() -> Path:
    try:
        return share.find(PACKED_BAG)
    except ConfigurationError as error:
        raise InputError("the drive of the demo lies in the source checkout only: give the path of a BAG") from error
