"""`mfuser evaluate`: scores of a model on labelled sets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mfuser_ros.commands.progress import track
from mfuser_ros.errors import ConfigurationError, DatasetError

if TYPE_CHECKING:
    from mfuser_ros.datasets.config import DatasetConfig
    from mfuser_ros.datasets.opening import Dataset
    from mfuser_ros.datasets.sample import Sample


def evaluate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="SET/SPLIT|DIR|BAG...",
            help="Such as camvid/dusk or my.yaml/test with --data; the folder of a set in its official layout; bags.",
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
    threshold: Annotated[
        float | None, typer.Option(help="Less probable pixels are unknown, which counts as wrong; left out: none is.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT of the network's input in a single pass, instead of the set's.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Only every Nth picture, for a quick look.")] = 1,
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
    """Score a model on data sets (one confusion matrix over the set, at the size of its labels) or on bags.

    Every frame of a bag is looked at once, with or without labels. A bag is read as far as it goes; what is damaged is
    named, and the exit code is 2. The same command with the same --out goes on where it was interrupted, and does no
    bag twice.

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
    for given in inputs:
        source, dataset = _open(given, data)
        chosen = range(0, len(dataset), every)
        samples = track(
            (dataset[index] for index in chosen), total=len(chosen), what=f"pictures of {source}", quiet=quiet
        )
        if calibrate:
            _calibrate(dataset.config, samples, model, device, _parsed(size) or dataset.config.size, quiet=quiet)
            continue
        folder = out if out is None or len(inputs) == 1 else out / source.replace("/", "_")
        summary = _evaluate_one(
            source, dataset.config, samples, model, device, protocol, threshold or 0.0, _parsed(size), every, folder
        )
        if not quiet:
            _print_table(summary)
            if folder is not None:
                print(folder / "report.html")


def _open(given: str, data: Path | None) -> tuple[str, Dataset]:
    """SET/SPLIT as it is to be called, and its pictures."""
    from mfuser_ros.datasets.config import load_config  # noqa: PLC0415  # cv2 takes its time to import
    from mfuser_ros.datasets.opening import open_split, recognise  # noqa: PLC0415

    if data is None:
        if not Path(given).is_dir():
            raise DatasetError(f"{given}: is no folder: give --data with SET/SPLIT, or the folder of a data set")
        place = recognise(Path(given))
        return f"{place.config.name}/{place.split}", open_split(place.config, place.split, place.data)
    name, _, split = given.rpartition("/")
    if not name:
        config = load_config(given)
        choices = ", ".join(f"{given}/{key}" for key in config.splits)
        raise DatasetError(f"{given}: which split? choose one of {choices}")
    return given, open_split(load_config(name), split, data)


def _parsed(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    width, _, height = size.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ConfigurationError(f"--size {size}: write WIDTHxHEIGHT, such as 640x480")
    return int(height), int(width)


def _evaluate_one(
    source: str, config: DatasetConfig, samples: Iterable[Sample], model: str, device: str,
    protocol: Literal["published", "single"] | None, threshold: float, size: tuple[int, int] | None, every: int,
    out: Path | None,
) -> dict[str, Any]:  # fmt: skip  # JSON
    import mfuser_ros  # noqa: PLC0415
    from mfuser_ros.checkpoints.store import locate, read_description  # noqa: PLC0415
    from mfuser_ros.evaluation.dataset import evaluate  # noqa: PLC0415
    from mfuser_ros.evaluation.protocol import SinglePass, choose  # noqa: PLC0415
    from mfuser_ros.evaluation.record import Record  # noqa: PLC0415
    from mfuser_ros.evaluation.summary import summarise, write_summary  # noqa: PLC0415

    architecture = read_description(locate(model).with_suffix(".yaml")).architecture
    way = choose(architecture, config, protocol, size)
    input_size = way.size if isinstance(way, SinglePass) else None
    segmenter = mfuser_ros.load(model, device=device, threshold=0, precision="float32", input_size=input_size)
    record = Record(config)
    probabilities = way.probabilities(segmenter)
    result = evaluate(samples, config, probabilities, threshold=threshold, batch=1, watch=record.add)
    summary = summarise(
        result,
        source=source,
        model={"name": segmenter.name, "sha256": segmenter.sha256},
        settings={
            **way.settings(), "threshold": threshold, "every": every, "precision": segmenter.precision,
            "device": segmenter.device,
        },
        record=record,
    )  # fmt: skip
    if out is not None:
        from mfuser_ros.evaluation.report.page import write_report  # noqa: PLC0415
        from mfuser_ros.evaluation.report.set_report import set_report  # noqa: PLC0415

        write_summary(summary, out)
        record.write_frames(out)
        write_report(set_report(summary, result, record), out)
    return summary


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
    table.add_row("boundary IoU", percent(summary["boundary_iou"]))
    table.add_row("calibration error", percent(summary["calibration"]["ece"]))
    Console().print(table)


if __name__ == "__main__":
    typer.run(evaluate)
