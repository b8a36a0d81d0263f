"""Fits temperature and threshold of a model, measures what they are worth, and writes docs/calibration.md from it.

    python docs/calibration.py --data DATA --device cuda

Source sets are the recipe's validation set and the sequences that the recipe leaves out of its training; camvid/dusk
and idd_lite/val only measure. Temperature and threshold go into the YAML beside the weights, all figures into
docs/benchmarks/calibration_NAME.json, curves into docs/pictures/. Without --data the page is written from the JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from tables import filled

import mfuser_ros
from mfuser_ros.checkpoints.store import load_model, locate
from mfuser_ros.commands.progress import track
from mfuser_ros.datasets.config import DatasetConfig, load_config
from mfuser_ros.datasets.opening import Dataset, open_split
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.errors import DatasetError
from mfuser_ros.evaluation.calibration import LOST, PIXELS, Fit, Pixels, draw, fit_sets, write_fit
from mfuser_ros.evaluation.calibration_curves import judge
from mfuser_ros.evaluation.dataset import Probabilities
from mfuser_ros.training.config import load_recipe

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("camvid/dusk", "idd_lite/val")

Json = dict[str, Any]


class Part(NamedTuple):
    """Some pictures of a split."""

    name: str  # SET/SPLIT, or SET/SPLIT/SEQUENCE
    config: DatasetConfig
    dataset: Dataset
    chosen: list[int]

    def samples(self) -> Iterator[Sample]:
        """The pictures, one after the other."""
        return (self.dataset[index] for index in self.chosen)


def source_names(recipe: Path) -> list[str]:
    """What a recipe keeps for selection: its validation set, and the sequences that it leaves out."""
    config = load_recipe(recipe)
    left_out = [
        f"{source.dataset}/{source.split}/{sequence}" for source in config.sources for sequence in source.leave_out
    ]
    return [f"{config.validation.dataset}/{config.validation.split}", *left_out]


def open_part(name: str, data: Path, every: int) -> Part:
    """Every Nth picture of SET/SPLIT or of SET/SPLIT/SEQUENCE.

    Raises:
        DatasetError: there is no such split or sequence.
    """
    set_name, split, *sequence = name.split("/")
    config = load_config(set_name)
    dataset = open_split(config, split, data)
    chosen = [
        index for index, stem in enumerate(dataset.stems) if not sequence or config.sequence_of(stem) == sequence[0]
    ]
    if not chosen:
        raise DatasetError(
            f"{name}: no picture of {set_name}/{split} is of this sequence: check leave_out of the recipe"
        )
    return Part(name, config, dataset, chosen[::every])


def measure(model: str, data: Path, recipe: Path, *, device: str, every: int, keep: bool) -> Json:
    """Fit on the recipe's sources, write it into the model's YAML (unless `keep`), judge sources and targets."""
    path = locate(model)
    _, description = load_model(path)
    sources = source_names(recipe)
    drawn: dict[str, Pixels] = {}
    for name in [*sources, *TARGETS]:
        part = open_part(name, data, every)
        samples = track(part.samples(), total=len(part.chosen), what=f"pictures of {name}", quiet=False)
        drawn[name] = draw(samples, part.config, untempered(path, device, part.config.size))
    if keep:
        temperature, threshold = description.temperature, description.threshold
    else:
        fitted: Fit = fit_sets([drawn[name] for name in sources])
        write_fit(path, fitted)
        temperature, threshold = fitted.temperature, fitted.threshold
    return {
        "version": 1,
        "what": "calibration",
        "model": {"name": description.name, "sha256": description.sha256},
        "temperature": temperature,
        "threshold": threshold,
        "fitted": not keep,
        "lost": LOST,
        "pixels_per_picture": PIXELS,
        "every": every,
        "sets": [
            {"set": name, "role": "source" if name in sources else "target"}
            | judge(pixels, temperature=temperature, threshold=threshold)
            for name, pixels in drawn.items()
        ],
    }


def untempered(model: Path, device: str, size: tuple[int, int]) -> Probabilities:
    """The probabilities of a model at a temperature of 1, for pictures stretched to `size`."""
    segmenter = mfuser_ros.load(model, device=device, threshold=0, precision="float32", input_size=size)
    segmenter.temperature = 1.0

    def run(pictures: list[np.ndarray], label_size: tuple[int, int]) -> torch.Tensor:
        return torch.stack([torch.from_numpy(segmenter.probabilities(picture, label_size)) for picture in pictures])

    return run


def reliability_picture(content: Json, file: Path) -> None:
    """Accuracy against probability, one panel a set, with the share of the pixels below."""
    sets = content["sets"]
    figure, axes = plt.subplots(
        2, len(sets), figsize=(3.1 * len(sets), 4.1), sharex=True, sharey="row", squeeze=False,
        height_ratios=[3, 1], layout="constrained",
    )  # fmt: skip
    for column, entry in enumerate(sets):
        bins = entry["reliability"]
        edges = [index / len(bins["share"]) for index in range(len(bins["share"]))]
        upper, lower = axes[0][column], axes[1][column]
        upper.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
        points = [(x, y) for x, y in zip(bins["confidence"], bins["accuracy"], strict=True) if x is not None]
        upper.plot(*zip(*points, strict=True), marker="o", markersize=4, color="#1f5fa8")
        upper.axvline(content["threshold"], color="#c0392b", linewidth=1)
        upper.set_title(f"{entry['set']} ({entry['role']})\nECE {100 * entry['ece']:.2f} %", fontsize=9)
        _frame(upper)
        lower.bar(edges, bins["share"], width=1 / len(edges), align="edge", color="#9bb8d8", edgecolor="white")
        lower.set_yscale("log")
        lower.set_xlabel("probability of the best label", fontsize=8)
        lower.tick_params(labelsize=8)
    axes[0][0].set_ylabel("share that is right", fontsize=8)
    axes[1][0].set_ylabel("share of pixels", fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def road_picture(content: Json, file: Path) -> None:
    """Precision of the road against its recall, the upper right corner."""
    figure, axes = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
    for entry in content["sets"]:
        curve = entry["precision_recall"]
        (line,) = axes.plot(
            curve["recall"], curve["precision"], label=f"{entry['set']} ({entry['role']})",
            linestyle="-" if entry["role"] == "target" else "--",
        )  # fmt: skip
        for key, fill in (("without_threshold", "none"), ("with_threshold", line.get_color())):
            hits = entry["road"][key]
            if hits["precision"] is not None:
                axes.plot(
                    hits["recall"], hits["precision"], "o", color=line.get_color(), markersize=6, markerfacecolor=fill
                )
    for recall in (0.90, 0.95):
        axes.axvline(recall, color="0.8", linewidth=1, zorder=0)
    _frame(axes)
    axes.set(xlim=(0.8, 1.0), ylim=(0.9, 1.0005))
    axes.set_xlabel("recall of road (rings: best label; dots: the same with the threshold)", fontsize=8)
    axes.set_ylabel("precision of road", fontsize=8)
    axes.legend(fontsize=8, loc="lower left")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _frame(axes: Axes) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.grid(color="0.92")
    axes.tick_params(labelsize=8)


def tables(content: Json) -> dict[str, str]:
    """Every generated part of the page by its mark."""
    sources = [entry["set"] for entry in content["sets"] if entry["role"] == "source"]
    part = "" if content["every"] == 1 else f" Only every {content['every']}th picture of each set was looked at."
    held = (
        "No sequence of camvid/day was held back from the training of these weights, so that none could serve here."
        if len(sources) == 1
        else "The weights were trained without them."
    )
    how = "Fitted on" if content["fitted"] else "The model's own values, not fitted anew; the sources are"
    facts = (
        f"`{content['model']['name']}` ({content['model']['sha256'][:12]}): **temperature {content['temperature']:g}, "
        f"threshold {content['threshold']:g}**. {how} {' and '.join(sources)}, {content['pixels_per_picture']} pixels "
        f"of each picture, drawn at random. {held}{part}"
    )
    name = content["model"]["name"]
    return {
        "facts": facts,
        "error": _error_table(content),
        "road": _road_table(content),
        "unknown": _unknown_table(content),
        "pictures": f"![Reliability](pictures/calibration_{name}_reliability.png)\n\n"
        f"![Precision and recall of road](pictures/calibration_{name}_road.png)",
    }


def _error_table(content: Json) -> str:
    lines = [
        "| set | role | pictures | accuracy | ECE | ECE at temperature 1 | neg. log likelihood | at temperature 1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {entry['set']} | {entry['role']} | {entry['pictures']} | {_percent(entry['accuracy'])} | "
        f"**{_percent(entry['ece'], 2)}** | {_percent(entry['ece_before'], 2)} | {entry['nll']:.4f} | "
        f"{entry['nll_before']:.4f} |"
        for entry in content["sets"]
    ]
    return "\n".join(lines)


def _road_table(content: Json) -> str:
    lines = [
        "| set | role | precision at recall 90 | at recall 95 | best label: precision, recall | with the threshold |",
        "|---|---|---|---|---|---|",
    ]
    for entry in content["sets"]:
        road = entry["road"]
        at = " | ".join(_percent(point["precision"], 2) for point in road["at_recall"])
        both = " | ".join(
            f"{_percent(hits['precision'], 2)}, {_percent(hits['recall'], 2)}"
            for hits in (road["without_threshold"], road["with_threshold"])
        )
        lines.append(f"| {entry['set']} | {entry['role']} | {at} | {both} |")
    return "\n".join(lines)


def _unknown_table(content: Json) -> str:
    lines = ["| set | role | unknown | of the right pixels | of the wrong pixels |", "|---|---|---|---|---|"]
    lines += [
        f"| {entry['set']} | {entry['role']} | {_percent(entry['unknown'])} | {_percent(entry['right_lost'])} | "
        f"{_percent(entry['wrong_caught'])} |"
        for entry in content["sets"]
    ]
    return "\n".join(lines)


def _percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def write(content: Json, folder: Path) -> None:
    """JSON, curves and page of one model below the folder for documents."""
    name = content["model"]["name"]
    mpl.use("agg")
    (folder / "pictures").mkdir(exist_ok=True)
    file = folder / "benchmarks" / f"calibration_{name}.json"
    file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    reliability_picture(content, folder / "pictures" / f"calibration_{name}_reliability.png")
    road_picture(content, folder / "pictures" / f"calibration_{name}_road.png")
    page = folder / "calibration.md"
    page.write_text(filled(page.read_text(encoding="utf-8"), tables(content)), encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets; without it nothing is measured")
    parser.add_argument("--model", default="small", help="name in models/ or path of a .safetensors")
    parser.add_argument("--recipe", type=Path, default=ROOT / "config" / "train" / "small.yaml")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--every", type=int, default=1, help="look at every Nth picture only")
    parser.add_argument("--keep", action="store_true", help="judge the model's own temperature and threshold")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder with calibration.md and benchmarks/")
    chosen = parser.parse_args()
    if chosen.data is None:
        file = chosen.out / "benchmarks" / f"calibration_{chosen.model}.json"
        content = json.loads(file.read_text(encoding="utf-8"))
    else:
        content = measure(
            chosen.model, chosen.data, chosen.recipe, device=chosen.device, every=chosen.every, keep=chosen.keep
        )
    write(content, chosen.out)


if __name__ == "__main__":
    main()
