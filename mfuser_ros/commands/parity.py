"""`mfuser parity`: our network against numbers recorded from the published one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def parity(
    path: Annotated[Path, typer.Argument(help="A golden without its suffix: PATH.json and PATH.safetensors.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the verdict alone.")] = False,
) -> None:
    """Replay a golden and compare every recorded tensor.

    One line for each tensor with the largest difference and the tolerance, the verdict last. Exit status 1 if any
    tensor differs.

    Example: mfuser parity test/golden/model_eva_tiny
    """
    from mfuser_ros.checkpoints.parity import parity as replay_and_compare  # noqa: PLC0415  # imports torch
    from mfuser_ros.inference.windows import slide, starts  # noqa: PLC0415
    from mfuser_ros.training.replay import REPLAYS  # noqa: PLC0415

    rows = replay_and_compare(path, slide=slide, starts=starts, training=REPLAYS)
    if not quiet:
        width = max(len(row.key) for row in rows)
        for row in rows:
            verdict = "ok" if row.ok else "DIFFERS"
            typer.echo(f"{row.key:<{width}}  largest difference {row.difference:<9.3g}  ({row.tolerance})  {verdict}")
    different = sum(not row.ok for row in rows)
    name = path.name.removesuffix(".json").removesuffix(".safetensors")
    if different:
        typer.echo(f"{name}: no parity, {different} of {len(rows)} tensors differ")
        raise typer.Exit(1)
    typer.echo(f"{name}: parity, all {len(rows)} tensors agree")
