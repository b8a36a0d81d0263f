"""`mfuser export`: a model as an ONNX file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mfuser_ros.errors import ConfigurationError


def export(
    out: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The file to write.")],
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="Of the pictures that the file takes; multiples of 32.")
    ] = "640x352",
    batch: Annotated[int, typer.Option(help="Pictures in one call.")] = 1,
    opset: Annotated[int, typer.Option(help="Version of ONNX's operators, 18 to 23.")] = 18,
    output: Annotated[
        str, typer.Option(help="probability at a quarter of the size, or labels (and confidence) at the size itself.")
    ] = "probability",
    picture: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Compare on these pictures instead of noise; repeatable.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name in models/ or path of a .safetensors.")] = "small",
    vocabulary: Annotated[Path | None, typer.Option(help="YAML that renames or merges classes.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Write a model as ONNX: uint8 RGB pictures in, class probabilities or labels out, all else inside.

    Before the file is put in its place, ONNX Runtime runs it on the CPU on the same pictures as torch: the largest
    difference and the share of equal labels are printed, and beyond the tolerance nothing is written and the exit
    status is 1. docs/export.md says how to run it.

    Example: mfuser export small.onnx --size 640x352
    """
    import mfuser_ros  # noqa: PLC0415  cv2 and torch are imported where they are used
    from mfuser_ros.datasets.pictures import read_picture  # noqa: PLC0415
    from mfuser_ros.inference.export import NoParityError, export_onnx  # noqa: PLC0415

    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigurationError(f"--size {size}: write WIDTHxHEIGHT, such as 640x352")
    segmenter = mfuser_ros.load(model, device="cpu", vocabulary=vocabulary)
    try:
        check = export_onnx(
            segmenter, out, (int(height), int(width)), batch=batch, opset=opset,
            output=output,  # type: ignore[arg-type]  # checked there
            pictures=[read_picture(path) for path in picture or []],
        )  # fmt: skip
    except NoParityError as error:
        print(f"mfuser: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    if not quiet:
        print(
            f"{out}: {out.stat().st_size / 1e6:.1f} MB, opset {opset}; ONNX Runtime against torch: largest difference "
            f"{check.difference:.2g}, {check.equal:.3%} of labels equal: parity"
        )
