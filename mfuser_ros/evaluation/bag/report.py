"""The report of bags: scores where there are labels, timelines linked to frames, frames at both ends of the scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import plotly.graph_objects as go
import pyarrow.parquet as pq

from mfuser_ros.evaluation.bag.run import FRAMES, BagResult
from mfuser_ros.evaluation.bag.stills import FOLDER, Kept, figures
from mfuser_ros.evaluation.metrics import Calibration
from mfuser_ros.evaluation.report.charts import class_bars, confusion_matrix, matrix_height, reliability
from mfuser_ros.evaluation.report.page import Chart, Film, Headline, Legend, Part, Report, Section, Still, Table
from mfuser_ros.evaluation.report.set_report import percent
from mfuser_ros.vocabulary import Vocabulary

TIMELINES = 6
"""Recordings that are shown in time; the table has them all."""

POINTS = 2000
"""Points of a line; of a longer recording each is a mean of several frames."""

_LINES = (
    ("miou", "mean IoU", "#2f6fb0", 100, "y"),
    ("road_iou", "road IoU", "#804080", 100, "y"),
    ("confidence", "confidence", "#3f9a5c", 100, "y"),
    ("unknown_share", "unknown", "#8a8f98", 100, "y"),
    ("latency_ms", "latency", "#c9822b", 1, "y2"),
)
_GROUND = (
    ("drivable_m", "free way ahead, m", "#3f9a5c", "y"),
    ("free_m2", "free area, m²", "#2f6fb0", "y2"),
    ("false_free_m2", "wrongly free, m²", "#b03a3a", "y2"),
)


@dataclass(frozen=True, eq=False)
class Timeline:
    """One camera of one bag in time.

    Attributes:
        bag: its path.
        topic: of the pictures.
        folder: of the bag's results.
        columns: by name, (N,) float64 with NaN where nothing was measured.
        result: of the bag.
    """

    bag: str
    topic: str
    folder: Path
    columns: Mapping[str, np.ndarray]
    result: BagResult


def bags_report(
    summary: Mapping[str, Any], folders: Sequence[Path], calibration: Calibration, vocabulary: Vocabulary
) -> Report:
    """The page.

    Args:
        summary: what summary.json holds.
        folders: of the finished bags.
        calibration: of all of them.
        vocabulary: of the model.
    """
    timelines = [line for folder in dict.fromkeys(folders) for line in timelines_of(folder)]
    labelled = summary["labelled_frames"] > 0
    sections = (
        [*_score_sections(summary, calibration, vocabulary)] if labelled else [_share_section(summary, vocabulary)]
    )
    if len(timelines) > 1:
        sections.append(_overview(timelines))
    shown = sorted(timelines, key=_standing)[:TIMELINES]
    legend = _legend(vocabulary)
    for number, line in enumerate(shown):
        sections.append(_timeline_section(line, number, legend))
    ends = "mean IoU" if labelled else "confidence"
    for kind, heading in (("worst", f"Frames of least {ends}"), ("best", f"Frames of highest {ends}")):
        stills = [still for line in shown for still in _stills(line, kind)]
        if stills:
            sections.append(Section(heading, [legend, *stills], note=_explanation(labelled)))
    return Report(
        title=f"{_short(summary['input'])}: {summary['model']['name']}",
        lead=_lead(summary, len(timelines)),
        headlines=_headlines(summary),
        notes=_notes(summary),
        sections=sections,
        facts={
            "Model": {key: str(value) for key, value in summary["model"].items()},
            "Settings": {key: str(value) for key, value in summary["settings"].items()},
            "Environment": {key: str(value) for key, value in summary["environment"].items()},
        },
    )


def timelines_of(folder: Path) -> list[Timeline]:
    """One for each camera of a finished bag."""
    result = BagResult.read(folder)
    assert result is not None  # finished
    names = ["topic", "index", "time_s", *(line[0] for line in (*_LINES, *_GROUND))]
    table = pq.read_table(folder / FRAMES, columns=names)
    topics = np.array(table["topic"].to_pylist())
    lines = []
    for topic in sorted(set(topics.tolist())):
        mine = table.filter(topics == topic)
        columns = {name: mine[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in names[1:]}
        lines.append(Timeline(result.bag, topic, folder, columns, result))
    return lines


def _score_sections(summary: Mapping[str, Any], calibration: Calibration, vocabulary: Vocabulary) -> list[Section]:
    classes = summary["classes"]
    colours = _group_colours(summary, vocabulary)
    names = [entry["name"] for entry in classes]
    height = matrix_height(len(names))
    rows = [
        [entry["name"], *(percent(entry[key]) for key in ("iou", "precision", "recall", "share"))] for entry in classes
    ]
    return [
        Section(
            "Classes",
            [
                Chart("classes", class_bars(classes, colours), height),
                Table(["class", "IoU, %", "precision, %", "recall, %", "share, %"], rows),
            ],
            note="One confusion matrix over all labelled frames; a class without any pixel is not averaged.",
        ),
        Section(
            "Confusion",
            [Chart("confusion", confusion_matrix(np.array(summary["confusion"]), names), height + 40)],
            note="Share of the pixels of each label, in percent, by what they were taken for.",
        ),
        Section(
            "Confidence",
            [Chart("confidence", reliability(calibration))],
            note="Share of right pixels by the probability that the model gave them. Bars under the line: too sure.",
        ),
    ]


def _share_section(summary: Mapping[str, Any], vocabulary: Vocabulary) -> Section:
    shares = [(entry, summary["predicted"]["shares"][entry.name]) for entry in vocabulary.entries()]
    shares = sorted(((entry, share) for entry, share in shares if share >= 5e-4), key=lambda pair: -pair[1])
    figure = go.Figure()
    figure.add_bar(
        y=[entry.name for entry, _ in shares],
        x=[round(100 * share, 2) for _, share in shares],
        orientation="h",
        marker={
            "color": [f"rgb{entry.colour}" for entry, _ in shares],
            "line": {"color": "rgba(0,0,0,0.35)", "width": 1},
        },
        hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
    )
    figure.update_xaxes(title="share of the pixels, %")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return Section(
        "Classes",
        [Chart("shares", figure, matrix_height(len(shares)))],
        note="The recording has no labels: what the model took the pixels for. Classes under 0.05 % are left out.",
    )


def _overview(timelines: Sequence[Timeline]) -> Section:
    rows = [
        [
            f"{_short(line.bag)} {line.topic}",
            str(len(line.columns["time_s"])),
            percent(_mean(line.columns["miou"])),
            percent(_mean(line.columns["confidence"])),
            percent(_mean(line.columns["unknown_share"])),
            str(line.result.corrupt) + (", incomplete" if line.result.incomplete else ""),
        ]
        for line in timelines
    ]
    columns = ["recording", "frames", "mean IoU of a frame, %", "confidence, %", "unknown, %", "corrupt messages"]
    more = f" The {TIMELINES} lowest of them follow in time." if len(timelines) > TIMELINES else ""
    return Section("Recordings", [Table(columns, rows)], note=f"Means over the frames.{more}")


def _timeline_section(line: Timeline, number: int, legend: Legend) -> Section:
    film = f"{number}"
    parts: list[Part] = [Chart(f"timeline-{number}", _timeline_chart(line), 340, film)]
    if np.isfinite(line.columns["free_m2"]).any():
        parts.append(Chart(f"ground-{number}", _ground_chart(line), 260, film))
    frames = _film(line)
    if frames:
        parts += [legend, Film(film, frames)]
    return Section(
        f"{_short(line.bag)} {line.topic}",
        parts,
        note="Click into a chart or move the slider to see the frame: picture, label where there is one, prediction, "
        "and the drivable area from above where the camera's pose is known.",
    )


def _timeline_chart(line: Timeline) -> go.Figure:
    figure = go.Figure()
    for name, text, colour, factor, axis in _LINES:
        _add_line(figure, line, name, text, colour, axis, factor)
    figure.update_xaxes(title="time in the recording, s")
    figure.update_layout(
        hovermode="x unified",
        yaxis={"title": "%", "range": [0, 100]},
        yaxis2={"title": "latency, ms", "rangemode": "tozero", "overlaying": "y", "side": "right", "showgrid": False},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
    )
    return figure


def _ground_chart(line: Timeline) -> go.Figure:
    figure = go.Figure()
    for name, text, colour, axis in _GROUND:
        _add_line(figure, line, name, text, colour, axis, 1)
    figure.update_xaxes(title="time in the recording, s")
    figure.update_layout(
        hovermode="x unified",
        yaxis={"title": "m", "rangemode": "tozero"},
        yaxis2={"title": "m²", "rangemode": "tozero", "overlaying": "y", "side": "right", "showgrid": False},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
    )
    return figure


def _add_line(figure: go.Figure, line: Timeline, name: str, text: str, colour: str, axis: str, factor: float) -> None:
    values = line.columns[name]
    if not np.isfinite(values).any():
        return
    x, y = _thinned(line.columns["time_s"], values)
    figure.add_scatter(
        x=x.round(3).tolist(),
        y=[None if np.isnan(value) else round(float(factor * value), 2) for value in y],
        name=text,
        yaxis=axis,
        mode="lines+markers" if len(x) <= 200 else "lines",
        line={"color": colour, "width": 1.5, "dash": "dot" if axis == "y2" else "solid"},
        marker={"size": 4},
        hovertemplate="%{y:.1f}",
    )


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbours, so that no line has more than `POINTS` points."""
    step = -(-len(x) // POINTS)
    if step <= 1:
        return x, y
    edges = np.arange(0, len(x), step)
    seen = np.isfinite(y)
    counts = np.add.reduceat(seen, edges)
    sums = np.add.reduceat(np.where(seen, y, 0), edges)
    means = np.divide(sums, counts, out=np.full(len(edges), np.nan), where=counts > 0)
    return np.add.reduceat(x, edges) / np.diff([*edges, len(x)]), means


def _film(line: Timeline) -> list[tuple[bytes, str, float]]:
    captions = _captions(line, "film")
    return [
        ((line.folder / FOLDER / kept.file).read_bytes(), captions[kept.index], kept.time_s)
        for kept in _kept(line, "film")
    ]


def _stills(line: Timeline, kind: str) -> list[Still]:
    captions = _captions(line, kind)
    kept = _kept(line, kind)
    stills = []
    for entry in reversed(kept) if kind == "best" else kept:
        bgr = cv2.imread(str(line.folder / FOLDER / entry.file))
        stills.append(
            Still(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), f"{_short(line.bag)} {line.topic}: {captions[entry.index]}")
        )
    return stills


def _kept(line: Timeline, kind: str) -> list[Kept]:
    return [kept for kept in (Kept(**entry) for entry in line.result.stills.get(kind, [])) if kept.topic == line.topic]


def _captions(line: Timeline, kind: str) -> dict[int, str]:
    """Figures of the kept frames by their index."""
    places = {int(index): place for place, index in enumerate(line.columns["index"])}
    captions = {}
    for kept in _kept(line, kind):
        values = {name: column[places[kept.index]] for name, column in line.columns.items()}
        row = {name: None if np.isnan(value) else float(value) for name, value in values.items()}
        captions[kept.index] = figures(row | {"index": kept.index})
    return captions


def _headlines(summary: Mapping[str, Any]) -> list[Headline]:
    road, drivable, predicted = summary["road"] or {}, summary["drivable"] or {}, summary["predicted"]
    shares = {
        "mean IoU": summary["miou"],
        "road precision": road.get("precision"),
        "road recall": road.get("recall"),
        "boundary IoU": summary["boundary_iou"],
        "drivable IoU, picture": drivable.get("iou"),
        "drivable IoU, ground": drivable.get("iou_m"),
        "calibration error": summary["calibration"]["ece"],
        "mean confidence": predicted["confidence"],
        "unknown": predicted["unknown_share"],
    }
    headlines = [Headline(name, f"{percent(value)} %") for name, value in shares.items() if value is not None]
    flips, latency = summary["temporal"]["flips_per_s"], summary["latency_ms"]["p50"]
    if flips is not None:
        headlines.append(Headline("label changes of a point", f"{flips:.2f} /s"))
    if latency is not None:
        headlines.append(Headline("a frame (median)", f"{latency:.0f} ms"))
    verdicts = [
        Headline(limit["limit"], _value(limit["value"]), "good" if limit["holds"] else "bad")
        for limit in summary["limits"]
    ]
    return [*verdicts, *headlines]


def _value(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _notes(summary: Mapping[str, Any]) -> list[str]:
    notes = []
    for bag in summary["bags"]:
        notes += [f"{_short(bag['path'])}: {line}" for line in bag["damage"][:5]]
        if len(bag["damage"]) > 5:
            notes.append(f"{_short(bag['path'])}: and {len(bag['damage']) - 5} more, see summary.json")
        notes += [f"{_short(bag['path'])}: {line}" for line in bag["notes"]]
    return notes


def _lead(summary: Mapping[str, Any], cameras: int) -> str:
    labelled = summary["labelled_frames"]
    recordings = f", {cameras} recordings" if cameras > 1 else ""
    return f"{summary['frames']} frames{recordings}, {labelled or 'none'} of them with a label."


def _explanation(labelled: bool) -> str:
    if labelled:
        return "Picture, label, prediction; white lines hatch the wrong pixels."
    return "Picture and prediction."


def _legend(vocabulary: Vocabulary) -> Legend:
    return Legend([*((entry.name, entry.colour) for entry in vocabulary.entries()), ("unknown", (0, 0, 0))])


def _group_colours(summary: Mapping[str, Any], vocabulary: Vocabulary) -> list[tuple[int, int, int]]:
    return [vocabulary[members[0]].colour for members in summary["groups"]]


def _standing(line: Timeline) -> float:
    """Low for recordings that are worth a look."""
    score = _mean(line.columns["miou"])
    confidence = _mean(line.columns["confidence"])
    return score if score is not None else 1 + (confidence or 0)


def _mean(values: np.ndarray) -> float | None:
    seen = values[np.isfinite(values)]
    return float(seen.mean()) if seen.size else None


def _short(path: str) -> str:
    """The last part of a path; of several inputs the number."""
    inputs = path.split(" ")
    return Path(path).name if len(inputs) == 1 else f"{Path(inputs[0]).name} and {len(inputs) - 1} more"
