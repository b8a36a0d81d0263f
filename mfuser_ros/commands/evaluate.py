"""`mfuser evaluate`: scores of a model on labelled sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mfuser_ros.errors import ConfigurationError


def evaluate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="SET/SPLIT|DIR...",
            help="Such as camvid/dusk or my.yaml/test with --data; or the folder of a set in its official layout.",
        ),
    ],
    data: Annotated[Path | None, typer.Option(help="Folder of the data sets, for SET/SPLIT.")] = None,
    model: Annotated[str, typer.Option(help="Name in models/ or path of a .safetensors.")] = "small",
    out: Annotated[
        Path | None, typer.Option(help="Folder for summary.json, frames.parquet and report.html; one each of several.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    protocol: Annotated[
        Literal["published", "single"] | None,
        typer.Option(
            help="published: scaled as the set says, sliding windows. single: one pass over the whole picture. "
            "Left out: what the model was made for."
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Less probable pixels are unknown, which counts as wrong.")] = 0.0,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT of the network's input in a single pass, instead of the set's.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Only every Nth picture, for a quick look.")] = 1,
    calibrate: Annotated[
        bool, typer.Option(help="Do not score: fit temperature and threshold on the set and write them into the model.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(help="Do not score: decode every pair, name the first bad file, print the shares of the labels."),
    ] = False,
    quiet: Annotated[bool, typer.Option(help="Print no table.")] = False,
) -> None:
    """Score a model on data sets: one confusion matrix over the set, at the size of its labels.

    Example: mfuser evaluate camvid/dusk idd_lite/val --data data --out evaluation
    """
    from mfuser_ros.commands import set_evaluation  # noqa: PLC0415  # torch and cv2 take their time

    options = set_evaluation.SetOptions(model, device, protocol, threshold, _parsed(size), every, quiet)
    for given in inputs:
        source, dataset = set_evaluation.open_set(given, data)
        if check:
            set_evaluation.check(source, dataset, options)
        elif calibrate:
            set_evaluation.calibrate(source, dataset, options)
        else:
            folder = out if out is None or len(inputs) == 1 else out / source.replace("/", "_")
            set_evaluation.score(source, dataset, options, folder)


def _parsed(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    width, _, height = size.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ConfigurationError(f"--size {size}: write WIDTHxHEIGHT, such as 640x480")
    return int(height), int(width)


if __name__ == "__main__":
    typer.run(evaluate)
