"""The report of a labelled set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mfuser_ros.evaluation.dataset import Evaluation
from mfuser_ros.evaluation.record import KeptPicture, Record
from mfuser_ros.evaluation.report.charts import class_bars, confusion_matrix, matrix_height, reliability
from mfuser_ros.evaluation.report.page import Chart, Headline, Legend, Report, Section, Still, Table
from mfuser_ros.evaluation.report.triptych import triptych

_METRICS = ("iou", "precision", "recall", "share")


def set_report(summary: Mapping[str, Any], evaluation: Evaluation, record: Record) -> Report:
    """A page with scores, confusion, confidence, and the worst and best pictures.

    Args:
        summary: what summary.json holds.
        evaluation: what was counted.
        record: of its pictures.
    """
    config = evaluation.config
    names = [label.name for label in config.labels]
    palette = config.palette()
    colours = [_rgb(palette[label.id]) for label in config.labels]
    height = matrix_height(len(names))
    settings = summary["settings"]
    legend = Legend([*zip(names, colours, strict=True), ("not labelled, unknown", (0, 0, 0))])
    sections = [
        Section(
            "Classes",
            [
                Chart("classes", class_bars(summary["classes"], colours), height),
                Table(["class", *(f"{name}, %" for name in ("IoU", *_METRICS[1:]))], _class_rows(summary["classes"])),
            ],
            note="One confusion matrix over all pictures; a class without any pixel is not averaged.",
        ),
        Section(
            "Confusion",
            [Chart("confusion", confusion_matrix(evaluation.confusion.counts, names), height + 40)],
            note="Share of the pixels of each label, in percent, by what they were taken for.",
        ),
        Section(
            "Confidence",
            [Chart("confidence", reliability(evaluation.calibration))],
            note="Share of right pixels by the probability that the model gave them. Bars under the line: too sure.",
        ),
        Section(
            "Pictures",
            [Chart("pictures", _pictures_chart(record), 300)],
            note="Mean IoU of each picture alone, in the order of their names; the red ones are shown below.",
        ),
        Section(
            "Worst pictures",
            [legend, *(_still(kept, palette) for kept in record.worst)],
            note="Picture, label, prediction; white lines hatch the wrong pixels.",
        ),
    ]
    if record.best:
        sections.append(Section("Best pictures", [_still(kept, palette) for kept in record.best]))
    return Report(
        title=f"{summary['input']}: {summary['model']['name']}",
        lead=f"{summary['frames']} pictures, {_protocol(settings)}.",
        headlines=_headlines(summary),
        sections=sections,
        facts={
            "Model": {key: str(value) for key, value in summary["model"].items()},
            "Settings": {key: _text(value) for key, value in settings.items()},
            "Data": {"licence": config.licence, "cite": config.cite},
            "Environment": {key: str(value) for key, value in summary["environment"].items()},
        },
    )


def percent(value: float | None) -> str:
    """A share as text in percent, a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def _headlines(summary: Mapping[str, Any]) -> list[Headline]:
    road = summary["road"] or {}
    figures = {
        "mean IoU": summary["miou"],
        "pixel accuracy": summary["pixel_accuracy"],
        "boundary IoU": summary["boundary_iou"],
        "road precision": road.get("precision"),
        "road recall": road.get("recall"),
        "calibration error": summary["calibration"]["ece"],
    }
    entries = [Headline(name, f"{percent(value)} %") for name, value in figures.items() if value is not None]
    latency = summary["latency_ms"]["p50"]
    return entries if latency is None else [*entries, Headline("a picture (median)", f"{latency:.0f} ms")]


def _protocol(settings: Mapping[str, Any]) -> str:
    if settings["protocol"] == "single":
        height, width = settings["size"]
        return f"one pass over each whole picture at {width}x{height}"
    long, short = settings["within"]
    return (
        f"published protocol: scaled to fit {long}x{short}, windows of {settings['window']} px every "
        f"{settings['stride']} px, their scores averaged"
    )


def _class_rows(classes: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [[entry["name"], *(percent(entry[key]) for key in _METRICS)] for entry in classes]


def _pictures_chart(record: Record) -> go.Figure:
    rows = [row for row in record.rows if row["miou"] is not None]
    worst = {kept.stem for kept in record.worst}
    figure = go.Figure()
    figure.add_scatter(
        x=[row["index"] for row in rows],
        y=[round(100 * row["miou"], 2) for row in rows],
        customdata=[row["stem"] for row in rows],
        mode="lines+markers",
        line={"width": 1, "color": "#9db8d6"},
        marker={"size": 6, "color": ["#b03a3a" if row["stem"] in worst else "#2f6fb0" for row in rows]},
        hovertemplate="%{customdata}: %{y:.1f} %<extra></extra>",
    )
    figure.update_xaxes(title="picture", tickformat="d", rangemode="tozero")
    figure.update_yaxes(title="mean IoU, %", rangemode="tozero")
    return figure


def _still(kept: KeptPicture, palette: np.ndarray) -> Still:
    faults = "; ".join(f"{label} seen as {guess} {percent(share)} %" for label, guess, share in kept.faults)
    of_pixels = f"; of the labelled pixels: {faults}" if faults else ""
    caption = f"{kept.stem}: mean IoU {percent(kept.miou)} %{of_pixels}"
    sheet = triptych(kept.picture, kept.label, kept.prediction, palette)
    return Still(sheet, caption, f"picture-{kept.stem.replace('/', '-')}")


def _text(value: Any) -> str:  # a setting of any kind
    return " x ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in colour)
    return red, green, blue
