"""What `mfuser evaluate --compare` does. Imports what takes time; the verb imports it when it is called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mfuser_ros import vocabulary
from mfuser_ros.commands.bag_evaluation import edge
from mfuser_ros.commands.limits import tell_limits
from mfuser_ros.errors import MFuserError
from mfuser_ros.evaluation.bag.again import Place, look_again
from mfuser_ros.evaluation.bag.meter import Measured
from mfuser_ros.evaluation.bag.run import BagResult, load_segmenter
from mfuser_ros.evaluation.bag.settings import BagSettings
from mfuser_ros.evaluation.compare import compare, open_run
from mfuser_ros.evaluation.limits import Limit, judge
from mfuser_ros.evaluation.report.comparison import comparison_report
from mfuser_ros.evaluation.report.page import Legend, Still, write_report
from mfuser_ros.evaluation.report.triptych import triptych

PANEL_WIDTH = 300  # pixels


def compare_runs(a: Path, b: Path, *, limits: Sequence[Limit], out: Path | None, quiet: bool) -> bool:
    """Compare two results; print the differences, write comparison.json and report.html into `out`, if given.

    Returns:
        Whether every limit holds; limits name figures of the comparison, such as miou.difference.
    """
    comparison = compare(open_run(a), open_run(b))
    figures = {entry["name"]: entry for entry in comparison["metrics"]} | {"classes": comparison["classes"]}
    comparison["limits"] = judge(figures, limits)
    if not quiet:
        _print(comparison)
    if out is not None:
        stills, notes = _stills(comparison)
        words = vocabulary.load()
        legend = Legend([*((entry.name, entry.colour) for entry in words.entries()), ("unknown", (0, 0, 0))])
        page = write_report(comparison_report(comparison, stills, legend, notes), out)
        text = json.dumps(comparison, indent=1, allow_nan=False)
        (out / "comparison.json").write_text(text + "\n", encoding="utf-8")
        if not quiet:
            print(page)
    return tell_limits(comparison)


def _stills(comparison: Mapping[str, Any]) -> tuple[list[Still], list[str]]:
    """The frames that differ most as both models see them, as far as bags and models are still there."""
    frames = [frame for frame in comparison["most_different"] if frame["bag"]]
    stills, notes = [], []
    for bag in dict.fromkeys(frame["bag"] for frame in frames):
        places: list[Place] = [(frame["topic"], frame["index"]) for frame in frames if frame["bag"] == bag]
        try:
            a, b = (_seen(Path(comparison[run]["folder"]), Path(bag), places) for run in ("a", "b"))
        except MFuserError as error:
            notes.append(f"no pictures of the frames that differ most: {error}")
            continue
        for topic, index in places:
            if (topic, index) in a and (topic, index) in b:
                stills.append(_still(a[topic, index], b[topic, index], f"{Path(bag).name} {topic} {index}"))
    return stills, notes


def _seen(run: Path, bag: Path, places: Sequence[Place]) -> dict[Place, Measured]:
    results = (BagResult.read(file.parent) for file in sorted(run.glob("bags/*/result.json")))
    result = next((found for found in results if found is not None and Path(found.bag).name == bag.name), None)
    if result is None:
        return {}
    settings = BagSettings.model_validate(result.settings)
    return look_again(Path(result.bag), places, settings, edge(), load_segmenter(settings))


def _still(a: Measured, b: Measured, name: str) -> Still:
    palette = vocabulary.load().palette()
    left = triptych(a.picture, a.label, a.prediction, palette, width=PANEL_WIDTH)
    right = triptych(b.picture, b.label, b.prediction, palette, width=PANEL_WIDTH)[:, -PANEL_WIDTH:]
    gap = np.full((left.shape[0], 6, 3), 255, np.uint8)
    return Still(np.concatenate([left, gap, right], axis=1), name)


def _print(comparison: Mapping[str, Any]) -> None:
    title = f"B minus A on {comparison['frames']} common frames, {comparison['blocks']} blocks"
    table = Table(title=title, box=None)
    table.add_column("figure", no_wrap=True)
    for column in ("A", "B", "B - A", "95 % low", "high", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for entries in (comparison["metrics"], comparison["classes"]):
        for entry in entries:
            if entry["difference"] is not None:
                values = (entry[key] for key in ("a", "b", "difference", "low", "high", "p"))
                table.add_row(entry["name"], *("-" if value is None else f"{value:.3f}" for value in values))
        table.add_section()
    Console().print(table)
