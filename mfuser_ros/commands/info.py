"""`mfuser info`: what a model is, where it comes from and under which licence."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfuser_ros.commands.progress import track
from mfuser_ros.errors import ConfigurationError

if TYPE_CHECKING:
    from mfuser_ros.network.model import MFuser


class Topic(str, Enum):
    """What a table of the paper's figures is about."""

    EFFICIENCY = "efficiency"
    SCALING = "scaling"


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name in models/ or path of a .safetensors.")] = "small",
    table: Annotated[
        Topic | None,
        typer.Option(
            help="Instead: cost of each fusion, beside the paper's, or measured at 0.5 to 8 times the tokens."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Of the measured table: auto, cpu, cuda or cuda:N.")] = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the measured table here.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the measured table into this PNG.")] = None,
) -> None:
    """Say what a model is: parts and parameters, classes, provenance, licence. Its weights are checked on the way.

    Example: mfuser info small
    Example: mfuser info --table efficiency
    Example: mfuser info eva02-l --table scaling --device cuda --plot scaling.png --json scaling.json
    """
    if table is Topic.SCALING:
        _scaling(model, device, json_file, plot)
        return
    if json_file or plot:
        raise ConfigurationError("--json and --plot belong to --table scaling: add it or leave them out")
    if table is Topic.EFFICIENCY:
        _efficiency()
        return
    from rich.console import Console  # noqa: PLC0415  torch takes seconds to import, rich some of one
    from rich.table import Table  # noqa: PLC0415

    from mfuser_ros.checkpoints import load_model, locate  # noqa: PLC0415

    path = locate(model)
    network, file = load_model(path)
    facts = Table(box=None, show_header=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row("model", file.name)
    facts.add_row("weights", f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    facts.add_row("SHA-256", file.sha256)
    facts.add_row("classes", ", ".join(file.vocabulary))
    facts.add_row("threshold", f"{file.threshold:g}")
    facts.add_row("temperature", f"{file.temperature:g}")
    facts.add_row("provenance", file.provenance)
    facts.add_row("licence", file.licence)
    parts = Table("part", box=None)
    parts.add_column("parameters", justify="right")
    for name, count in _parameters(network):
        parts.add_row(name, f"{count:,}")
    parts.add_section()
    parts.add_row("all", f"{sum(count for _, count in _parameters(network)):,}")
    console = Console()
    console.print(facts)
    console.print()
    console.print(parts)


def _parameters(network: MFuser) -> list[tuple[str, int]]:
    """Learned numbers of each part of the network; parts without any are left out."""
    counts = {name: sum(tensor.numel() for tensor in part.parameters()) for name, part in network.named_children()}
    return [(name, count) for name, count in counts.items() if count]


def _efficiency() -> None:
    """Parameters and GFLOPs of each fusion beside the paper's table 3."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from mfuser_ros.network.alternatives.cost import PAPER, efficiency  # noqa: PLC0415

    table = Table("fusion", box=None)
    for column in ("parameters M", "paper", "GFLOPs", "paper"):
        table.add_column(column, justify="right")
    table.add_column("")
    notes = Table(box=None, show_header=False)
    for row in efficiency():
        paper = PAPER.get(row.kind, ("", ""))
        parameters, gflops = row.shown
        table.add_row(row.kind, parameters, paper[0], gflops, paper[1], row.verdict)
        notes.add_row(row.kind, row.note)
    console = Console()
    console.print(table)
    console.print("\none block, 2 x 1297 tokens of width 1024, batch 2\n")
    console.print(notes)


def _scaling(preset: str, device: str, json_file: Path | None, plot: Path | None) -> None:
    """FLOPs and time of each fusion at several numbers of tokens."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from mfuser_ros.commands.bench import environment  # noqa: PLC0415
    from mfuser_ros.evaluation import scaling  # noqa: PLC0415
    from mfuser_ros.inference.loading import choose_device  # noqa: PLC0415

    if preset not in scaling.SIZES:
        raise ConfigurationError(f"{preset}: its fusion is not measured: choose one of {', '.join(scaling.SIZES)}")
    target = choose_device(device)
    where = environment()  # before the machine gets warm by us
    total = len(scaling.KINDS) * len(scaling.FACTORS)
    points = list(track(scaling.measure(scaling.SIZES[preset], target), total=total, what="sizes", quiet=False))
    name = scaling.device_name(target)
    table = Table("fusion", box=None, title=f"{preset}, one block, one picture, {name}", title_justify="left")
    for column in ("tokens", "GFLOPs", "ms", "least ms", "processor ms"):
        table.add_column(column, justify="right")
    for point in points:
        busy = "" if point.processor_ms is None else f"{point.processor_ms:.2f}"
        times = (f"{point.ms:.2f}", f"{point.least_ms:.2f}", busy)
        table.add_row(point.kind, f"{point.tokens:,}", f"{point.gflops:.2f}", *times)
    Console().print(table)
    if json_file is not None:
        try:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            content = json.dumps(scaling.as_json(preset, points, target, where), indent=1)
            json_file.write_text(content + "\n", encoding="utf-8")
        except OSError as error:
            reason = f"{json_file}: cannot be written ({error.strerror}): choose another file"
            raise ConfigurationError(reason) from error
    if plot is not None:
        scaling.draw(points, f"One fusion of {preset} on {name}", plot)
