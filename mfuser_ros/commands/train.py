"""`mfuser train`: repeat a recipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuser_ros.errors import DeviceError

if TYPE_CHECKING:
    import torch

    from mfuser_ros.network.model import MFuser
    from mfuser_ros.training.config import TrainConfig
    from mfuser_ros.training.journal import Report
    from mfuser_ros.training.loop import Validate


KEPT_BYTES = 2 << 30  # pictures of the validation that are more are decoded anew each time


def train(
    config: Annotated[Path, typer.Argument(help="Recipe, such as config/train/small.yaml.")],
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    towers: Annotated[Path, typer.Option(help="Folder of the pretrained towers and text embeddings.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, state and log.")],
    minutes: Annotated[
        float | None, typer.Option(help="Length of the whole schedule; ends it before its steps.")
    ] = None,
    session_minutes: Annotated[float | None, typer.Option(help="Stop and save after so long, to be resumed.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the schedule instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the recipe's.")] = None,
    resume: Annotated[Path | None, typer.Option(help="state.pt to go on from.")] = None,
    start: Annotated[Path | None, typer.Option(help="Weights (.safetensors) to begin a new schedule from.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="bf16 (needs a GPU) or fp32 instead of the recipe's.")] = None,
    eager: Annotated[bool, typer.Option(help="Do not record the step as a CUDA graph.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing; log.jsonl is written all the same.")] = False,
) -> None:
    """Train a network by a recipe; leaves PRESET.safetensors, PRESET.yaml, state.pt and log.jsonl in --out.

    Several GPUs or machines: torchrun --nproc-per-node 4 --no-python mfuser train ... shares the samples of each batch
    between the processes (docs/training.md).

    Example: mfuser train config/train/small.yaml --data data --towers weights --out runs/small --minutes 20
    """
    from mfuser_ros.inference.loading import choose_device  # noqa: PLC0415  # torch takes seconds to import
    from mfuser_ros.training import processes  # noqa: PLC0415
    from mfuser_ros.training.config import load_recipe  # noqa: PLC0415
    from mfuser_ros.training.loop import Limits, train  # noqa: PLC0415

    changes = {"seed": seed, "precision": precision}
    recipe = load_recipe(config, **{key: value for key, value in changes.items() if value is not None})
    target = processes.local_device(choose_device(device))
    _check_precision(recipe, target)
    with processes.joined(target), _reporting(quiet or processes.rank() > 0) as report:
        train(
            recipe,
            data=data,
            towers=towers,
            out=out,
            device=target,
            limits=Limits(steps or recipe.steps, minutes, session_minutes),
            eager=eager,
            resume=resume,
            start=start,
            validate=_validation(recipe, data, target) if processes.rank() == 0 else None,
            report=report,
        )


def _check_precision(recipe: TrainConfig, device: torch.device) -> None:
    import torch  # noqa: PLC0415

    if recipe.precision == "bf16" and not (device.type == "cuda" and torch.cuda.is_bf16_supported()):
        raise DeviceError(f"precision bf16: {device} has none: choose a GPU that has, or --precision fp32")


def _validation(recipe: TrainConfig, data: Path, device: torch.device) -> Validate:
    """The light evaluation of the recipe; its score is the mean IoU."""
    from mfuser_ros.datasets.config import load_config  # noqa: PLC0415
    from mfuser_ros.datasets.opening import open_split  # noqa: PLC0415
    from mfuser_ros.evaluation.dataset import evaluate  # noqa: PLC0415
    from mfuser_ros.evaluation.windowed import probabilities  # noqa: PLC0415

    chosen = recipe.validation
    config = load_config(chosen.dataset)
    dataset = open_split(config, chosen.split, data)
    indices = range(0, len(dataset), chosen.every_nth)
    few = 4 * dataset[0].label.size * len(indices) <= KEPT_BYTES
    kept = [dataset[index] for index in indices] if few else None

    def validate(model: MFuser) -> Mapping[str, float]:
        start = time.monotonic()
        samples = (dataset[index] for index in indices) if kept is None else kept
        scores = evaluate(samples, config, probabilities(model, device, config.size)).confusion.scores()
        return {
            f"{chosen.dataset}/{chosen.split}_miou": round(100 * (scores.miou or 0), 2),
            "road_iou": round(100 * float(scores.iou[0]), 2),
            "seconds": round(time.monotonic() - start, 1),
        }

    return validate


@contextmanager
def _reporting(quiet: bool) -> Iterator[Report | None]:
    """A progress bar with losses and the time that is left on a terminal, plain lines elsewhere."""
    if quiet:
        yield None
        return
    if not sys.stdout.isatty():
        yield _print_row
        return
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (BarColumn(), TextColumn("{task.percentage:.1f} %"), TextColumn("{task.description}"))
    with Progress(*columns) as bar:
        task = bar.add_task("starting", total=1.0)

        def show(row: Mapping[str, Any]) -> None:
            if "progress" in row:
                left = f"{row['eta_s'] // 60} min {row['eta_s'] % 60} s left"
                names = ("total", "marginal", "classes", "mask", "dice", "alignment")
                losses = ", ".join(f"{name} {row[name]:.3f}" for name in names if name in row)
                text = f"step {row['step']}, {losses}, {row['steps_per_s']:.1f} steps/s, {left}"
                bar.update(task, completed=row["progress"], description=text)
            else:
                bar.console.print(_line(row))

        yield show


def _print_row(row: Mapping[str, Any]) -> None:
    print(_line(row), flush=True)


def _line(row: Mapping[str, Any]) -> str:
    words = (f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
    return "  ".join(words)
