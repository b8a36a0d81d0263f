"""What `mfuser evaluate` does with labelled sets. Imports what takes time; the verb imports it when it is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import mfuser_ros
from mfuser_ros.checkpoints.store import load_model, locate, read_description
from mfuser_ros.commands.limits import tell_limits
from mfuser_ros.commands.progress import track
from mfuser_ros.datasets.config import load_config
from mfuser_ros.datasets.content import content_of
from mfuser_ros.datasets.opening import Dataset, open_split, recognise
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.errors import DatasetError
from mfuser_ros.evaluation.calibration import draw, fit_sets, write_fit
from mfuser_ros.evaluation.dataset import evaluate, network_probabilities
from mfuser_ros.evaluation.limits import Limit, judge
from mfuser_ros.evaluation.protocol import Protocol, SinglePass, choose
from mfuser_ros.evaluation.record import Record
from mfuser_ros.evaluation.report.page import write_report
from mfuser_ros.evaluation.report.set_report import percent, set_report
from mfuser_ros.evaluation.summary import summarise, write_summary
from mfuser_ros.inference.loading import choose_device


@dataclass(frozen=True)
class SetOptions:
    """How sets are evaluated; the options of the command."""

    model: str
    device: str
    protocol: Protocol | None
    threshold: float
    size: tuple[int, int] | None  # height, width
    every: int
    limits: Sequence[Limit]
    quiet: bool


def open_set(given: str, data: Path | None) -> tuple[str, Dataset]:
    """SET/SPLIT as it is to be called, and its pictures.

    Args:
        given: SET/SPLIT under `data`; without `data` the folder or tar of a set.
        data: folder of the data sets.

    Raises:
        DatasetError: it is neither, the split must be chosen, or files are missing.
    """
    if data is None:
        if not Path(given).exists():
            raise DatasetError(f"{given}: no such folder: give --data with SET/SPLIT, or the folder of a data set")
        place = recognise(Path(given))
        return f"{place.config.name}/{place.split}", open_split(place.config, place.split, place.data)
    name, _, split = given.rpartition("/")
    if not name:
        config = load_config(given)
        choices = ", ".join(f"{given}/{key}" for key in config.splits)
        raise DatasetError(f"{given}: which split? choose one of {choices}")
    return given, open_split(load_config(name), split, data)


def score(source: str, dataset: Dataset, options: SetOptions, out: Path | None) -> bool:
    """Evaluate, print the table, and write summary.json, frames.parquet and report.html into `out`, if given.

    Returns:
        Whether every limit holds.
    """
    config = dataset.config
    architecture = read_description(locate(options.model).with_suffix(".yaml")).architecture
    way = choose(architecture, config, options.protocol, options.size)
    segmenter = mfuser_ros.load(
        options.model,
        device=options.device,
        threshold=0,
        precision="float32",
        input_size=way.size if isinstance(way, SinglePass) else None,
    )
    record = Record(config)
    result = evaluate(
        _samples(source, dataset, options),
        config,
        way.probabilities(segmenter),
        threshold=options.threshold,
        batch=1,
        watch=record.add,
    )
    settings = way.settings() | {
        "threshold": options.threshold, "every": options.every, "precision": segmenter.precision,
        "device": segmenter.device,
    }  # fmt: skip
    model = {"name": segmenter.name, "sha256": segmenter.sha256}
    summary = summarise(result, source=source, model=model, settings=settings, record=record)
    summary["limits"] = judge(summary, options.limits)
    if not options.quiet:
        _print_scores(summary)
    if out is not None:
        record.write_frames(out)
        page = write_report(set_report(summary, result, record), out)
        write_summary(summary, out)
        if not options.quiet:
            print(page)
    return tell_limits(summary)


def check(source: str, dataset: Dataset, options: SetOptions) -> None:
    """Decode every pair and print what the split holds; the first bad file raises DatasetError."""
    content = content_of(_samples(source, dataset, options))
    if options.quiet:
        return
    sizes = ", ".join(f"{count} of {width}x{height}" for (height, width), count in sorted(content.sizes.items()))
    table = Table(title=f"{source}, {content.pictures} pairs, all readable", caption=sizes)
    table.add_column("label")
    for column in ("share, %", "pictures"):
        table.add_column(column, justify="right")
    for name, share, pictures in content.shares(dataset.config):
        table.add_row(name, f"{100 * share:.3f}", str(pictures))
    table.add_section()
    table.add_row("not labelled (of all pixels)", f"{100 * content.unlabelled:.3f}", "")
    Console().print(table)


def calibrate(splits: Sequence[tuple[str, Dataset]], options: SetOptions) -> None:
    """Fit one temperature and one threshold on all splits, which count alike, and write them into the model."""
    path = locate(options.model)
    device = choose_device(options.device)
    network, _ = load_model(path)
    network = network.to(device)
    drawn = [
        draw(
            _samples(source, dataset, options),
            dataset.config,
            network_probabilities(network, device, options.size or dataset.config.size),
        )
        for source, dataset in splits
    ]
    fitted = fit_sets(drawn)
    write_fit(path, fitted)
    if not options.quiet:
        print(
            f"{path.with_suffix('.yaml')}: temperature {fitted.temperature:g}, threshold {fitted.threshold:g} "
            f"(negative log likelihood {fitted.nll_before:.4f} -> {fitted.nll_after:.4f}, {fitted.pixels} pixels)"
        )


def _samples(source: str, dataset: Dataset, options: SetOptions) -> Iterator[Sample]:
    chosen = range(0, len(dataset), options.every)
    pictures = (dataset[index] for index in chosen)
    return track(pictures, total=len(chosen), what=f"pictures of {source}", quiet=options.quiet)


def _print_scores(summary: Mapping[str, Any]) -> None:  # JSON
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
