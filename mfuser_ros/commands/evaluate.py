"""`mfuser evaluate`: scores of a model on labelled sets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuser_ros.commands.progress import track
from mfuser_ros.errors import ConfigurationError, DatasetError

if TYPE_CHECKING:
    from mfuser_ros.datasets.config import DatasetConfig
    from mfuser_ros.datasets.packed import PackedDataset, Sample


def evaluate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="SET/SPLIT...|BAG...", help="Such as camvid/dusk, my.yaml/test for a YAML file; or bags."
        ),
    ],
    data: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    model: Annotated[str, typer.Option(help="Name in models/ or path of a .safetensors.")] = "small",
    out: Annotated[Path | None, typer.Option(help="Folder for summary.json.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threshold: Annotated[
        float | None, typer.Option(help="Less probable pixels are unknown, which counts as wrong; none: no pixel is.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the network's input instead of the set's.")] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Do not score: fit temperature and threshold on the set and write them into the model.")
    ] = False,
    topic: Annotated[list[str] | None, typer.Option(help="Bags: picture topics; none: all cameras.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TOPIC=]WHERE",
            help="Bags: topic of label pictures, or folder of PNGs named by stamp or index; auto, none.",
        ),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="Bags: what label ids mean: a set of config/datasets or a YAML.")
    ] = None,
    label_tolerance: Annotated[float, typer.Option(help="Bags: a label is of a frame this near in time (s).")] = 0.005,
    pose: Annotated[
        list[str] | None,
        typer.Option(metavar="[TOPIC=]X,Y,Z,ROLL,PITCH,YAW", help="Bags: pose of a camera (m, rad), for its ground."),
    ] = None,
    start: Annotated[float, typer.Option(help="Bags: leave out frames before this time (s).")] = 0.0,
    stop: Annotated[float | None, typer.Option(help="Bags: leave out frames from this time on (s).")] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="Bags: YAML that renames or merges classes.")] = None,
    quiet: Annotated[bool, typer.Option(help="Print no table.")] = False,
) -> None:
    """Score a model on data sets (one confusion matrix over the set) or on bags (every frame once, labels or not).

    A bag is read as far as it goes; what is damaged is named, and the exit code is 2. The same command on the same
    folder for results goes on where it was interrupted, and does no bag twice.

    Example: mfuser evaluate camvid/dusk idd_lite/val --data data --out evaluation
    Example: mfuser evaluate drive.mcap --pose 1.5,0,1.4,-1.5708,0,-1.5708 --out evaluation
    """
    from mfuser_ros.commands import bag_evaluation  # noqa: PLC0415  in its turn it imports when it must

    if any(bag_evaluation.is_bag(source) for source in inputs):
        from mfuser_ros.evaluation.bag.scheme import load_scheme  # noqa: PLC0415
        from mfuser_ros.evaluation.bag.settings import BagSettings  # noqa: PLC0415

        settings = BagSettings(
            model=model,
            device=device,
            vocabulary=None if vocabulary is None else str(vocabulary),
            threshold=threshold,
            size=_parsed(size),
            topics=tuple(topic or ()),
            labels={"": "auto"} | bag_evaluation.by_topic(labels or [], "--labels"),
            scheme=None if scheme is None else load_scheme(scheme),
            label_tolerance_s=label_tolerance,
            poses=bag_evaluation.poses(pose or []),
            start_s=start,
            stop_s=stop,
        )
        bag_evaluation.evaluate_bags([Path(source) for source in inputs], settings, out=out, quiet=quiet)
        return
    if data is None:
        raise DatasetError(f"{inputs[0]}: no bag is there; for a data set give the folder of the sets by --data")
    for source in inputs:
        config, dataset = _open(source, data)
        samples = track(dataset, total=len(dataset), what=f"pictures of {source}", quiet=quiet)
        if calibrate:
            _calibrate(config, samples, model, device, _parsed(size) or config.size, quiet=quiet)
            continue
        summary = _evaluate_one(source, config, samples, model, device, threshold or 0.0, _parsed(size) or config.size)
        if not quiet:
            _print_table(summary)
        if out is not None:
            from mfuser_ros.evaluation.summary import write_summary  # noqa: PLC0415

            path = write_summary(summary, out if len(inputs) == 1 else out / source.replace("/", "_"))
            if not quiet:
                print(path)


def _open(source: str, data: Path) -> tuple[DatasetConfig, PackedDataset]:
    from mfuser_ros.datasets.config import load_config  # noqa: PLC0415  # cv2 takes its time to import
    from mfuser_ros.datasets.packed import open_split  # noqa: PLC0415

    name, _, split = source.rpartition("/")
    if not name:
        config = load_config(source)
        choices = ", ".join(f"{source}/{key}" for key in config.splits)
        raise DatasetError(f"{source}: which split? choose one of {choices}")
    config = load_config(name)
    return config, open_split(config, split, data)


def _parsed(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    width, _, height = size.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ConfigurationError(f"--size {size}: write WIDTHxHEIGHT, such as 640x480")
    return int(height), int(width)


def _evaluate_one(
    source: str, config: DatasetConfig, samples: Iterable[Sample], model: str, device: str, threshold: float,
    size: tuple[int, int],
) -> dict[str, Any]:  # fmt: skip  # JSON
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    import mfuser_ros  # noqa: PLC0415
    from mfuser_ros.evaluation.dataset import evaluate  # noqa: PLC0415
    from mfuser_ros.evaluation.summary import summarise  # noqa: PLC0415

    segmenter = mfuser_ros.load(model, device=device, threshold=0, precision="float32", input_size=size)

    def probabilities(pictures: list[np.ndarray], label_size: tuple[int, int]) -> torch.Tensor:
        return torch.stack([torch.from_numpy(segmenter.probabilities(picture, label_size)) for picture in pictures])

    result = evaluate(samples, config, probabilities, threshold=threshold, batch=1)
    return summarise(
        result,
        source=source,
        model={"name": segmenter.name, "sha256": segmenter.sha256},
        settings={
            "size": list(size), "threshold": threshold, "precision": segmenter.precision, "device": segmenter.device,
        },
    )  # fmt: skip


def _calibrate(
    config: DatasetConfig, samples: Iterable[Sample], model: str, device: str, size: tuple[int, int], *, quiet: bool
) -> None:
    from mfuser_ros.checkpoints.store import load_model, locate  # noqa: PLC0415
    from mfuser_ros.evaluation.calibration import fit, write_fit  # noqa: PLC0415
    from mfuser_ros.evaluation.dataset import network_probabilities  # noqa: PLC0415
    from mfuser_ros.inference.loading import choose_device  # noqa: PLC0415

    path = locate(model)
    target = choose_device(device)
    network, _ = load_model(path)
    fitted = fit(samples, config, network_probabilities(network.to(target), target, size))
    write_fit(path, fitted)
    if not quiet:
        print(
            f"{path.with_suffix('.yaml')}: temperature {fitted.temperature:g}, threshold {fitted.threshold:g} "
            f"(negative log likelihood {fitted.nll_before:.4f} -> {fitted.nll_after:.4f}, {fitted.pixels} pixels)"
        )


def _print_table(summary: dict[str, Any]) -> None:  # JSON
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    table = Table(title=f"{summary['input']}, {summary['frames']} pictures, {summary['model']['name']}")
    table.add_column("class")
    for column in ("IoU", "precision", "recall", "share"):
        table.add_column(column, justify="right")
    for entry in summary["classes"]:
        table.add_row(entry["name"], *(percent(entry[key]) for key in ("iou", "precision", "recall", "share")))
    table.add_section()
    table.add_row("mean IoU", percent(summary["miou"]))
    table.add_row("pixel accuracy", percent(summary["pixel_accuracy"]))
    table.add_row("calibration error", percent(summary["calibration"]["ece"]))
    Console().print(table)


if __name__ == "__main__":
    typer.run(evaluate)
