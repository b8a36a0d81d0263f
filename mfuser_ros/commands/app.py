"""The command `mfuser`.

Each verb is a module of this package with one plain function (or, for `bag`, a typer app), registered here by one line.
`mfuser --help` imports all of them, so a verb's module imports typer, errors and the standard library at its top, and
whatever takes time (torch, cv2, rclpy, plotly, av) inside the function. A verb lets MFuserError pass: it becomes one
line on stderr and exit code 2 here.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import mfuser_ros
from mfuser_ros.commands import bag
from mfuser_ros.commands.bench import bench
from mfuser_ros.commands.calibrate import calibrate
from mfuser_ros.commands.convert import convert
from mfuser_ros.commands.demo import demo
from mfuser_ros.commands.evaluate import evaluate
from mfuser_ros.commands.export import export
from mfuser_ros.commands.info import info
from mfuser_ros.commands.parity import parity
from mfuser_ros.commands.segment import segment
from mfuser_ros.commands.train import train
from mfuser_ros.errors import MFuserError

app = typer.Typer(
    help="Semantic masks and a drivable area from vehicle cameras (MFuser).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a fault of ours is reported best with a plain traceback
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(mfuser_ros.__version__)
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Semantic masks and a drivable area from vehicle cameras (MFuser)."""


app.command()(segment)
app.command()(evaluate)
app.command()(train)
app.command()(bench)
app.command()(info)
app.command()(convert)
app.command()(parity)
app.command()(export)
app.command()(calibrate)
app.add_typer(bag.app, name="bag")
app.command()(demo)


def main() -> None:
    """Entry point of the installed command; ends the process."""
    try:
        app()
    except MFuserError as error:
        print(f"mfuser: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
