"""`mfuser convert`: published checkpoints to our model files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.hub import local_file


def convert(
    source: Annotated[
        Path, typer.Argument(help="Published checkpoint, .pth or .safetensors; with --vfm the original VLM.")
    ],
    target: Annotated[Path, typer.Argument(help="File to write, NAME.safetensors; NAME.yaml is written beside it.")],
    preset: Annotated[str | None, typer.Option(help="Published variant; found by the names if not given.")] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="Token ids of the class names (.yaml, .json) or a sentencepiece .model; siglip-l needs one."),
    ] = None,
    vfm: Annotated[
        Path | None,
        typer.Option(help="DINOv2-L, file or timm:NAME: SOURCE is then the original VLM, file or open_clip:MODEL/TAG."),
    ] = None,
    drop_text: Annotated[
        bool,
        typer.Option(
            "--drop-text", help="Store the class names' embeddings in place of the text tower: no other words."
        ),
    ] = False,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, if you know it.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing.")] = False,
) -> None:
    """Turn a published MFuser checkpoint into a model file of ours.

    The source is read without running code in it. Every weight is carried over or dropped for a stated reason; one that
    is unknown, missing or of another shape ends the conversion. With --vfm both files are those of the original
    encoders, DINOv2-L and one of EVA02-CLIP-L, CLIP-L and SigLIP-L, from disk or by their names on the hub; what comes
    out has their towers and else random weights: it must be trained before it segments anything.

    Example: mfuser convert mfuser-eva02-clip-vit-l-gta.pth models/eva02-l.safetensors

    Example: mfuser convert open_clip:EVA02-L-14-336/merged2b_s6b_b61k start.safetensors --vfm
    timm:vit_large_patch14_dinov2.lvd142m
    """
    if vfm is not None:
        for encoder in (source, vfm):
            local_file(encoder)  # a name that cannot be had is said before torch takes seconds to import
    from mfuser_ros.checkpoints import convert as conversion  # noqa: PLC0415  # imports torch
    from mfuser_ros.checkpoints import originals  # noqa: PLC0415

    licence = licence or conversion.LICENCE
    if vfm is None:
        made = conversion.convert(source, target, preset=preset, licence=licence, tokens=tokens, drop_text=drop_text)
    elif drop_text:
        raise ConfigurationError("--drop-text: an untrained model needs its text tower: leave it out")
    elif preset is not None:
        raise ConfigurationError(f"--preset {preset}: the original VLM's file tells the variant: leave it out")
    else:
        made = originals.save_untrained(source, vfm, target, tokens=tokens, licence=licence)
    if quiet:
        return
    typer.echo(f"{made.path}: {made.preset}, {made.tensors} tensors, SHA-256 {made.file.sha256}")
    for reason, count in Counter(made.dropped.values()).items():
        first = next(name for name, why in made.dropped.items() if why == reason)
        more = f" and {count - 1} more" if count > 1 else ""
        typer.echo(f"dropped {first}{more}: {reason}")
    typer.echo(f"{made.path.with_suffix('.yaml')}: threshold and temperature are not fitted for these weights")
