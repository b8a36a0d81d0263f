"""The page that puts two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from mfuser_ros.evaluation.report.charts import matrix_height
from mfuser_ros.evaluation.report.page import Chart, Headline, Legend, Part, Report, Section, Still, Table
from mfuser_ros.evaluation.report.set_report import percent

_SHARES = ("confidence", "unknown_share")
_NAMES = {
    "miou": "mean IoU", "pixel_accuracy": "pixel accuracy", "boundary_iou": "boundary IoU", "ece": "calibration error",
    "road_precision": "road precision", "road_recall": "road recall", "road_iou": "road IoU",
    "confidence": "confidence", "unknown_share": "unknown", "latency_ms": "latency, ms",
    "drivable_m": "free way ahead, m", "free_m2": "free area, m²", "flips_per_s": "label changes of a point, 1/s",
}  # fmt: skip
_PLAIN = ("latency_ms", "drivable_m", "free_m2", "flips_per_s")
_GREATER_IS_WORSE = ("ece", "unknown_share", "latency_ms", "flips_per_s")


def comparison_report(
    comparison: Mapping[str, Any], stills: Sequence[Still] = (), legend: Legend | None = None, notes: Sequence[str] = ()
) -> Report:
    """The page.

    Args:
        comparison: what `mfuser_ros.evaluation.compare.compare` gives.
        stills: the frames that differ most.
        legend: of their colours.
        notes: what a reader must know.
    """
    a, b = comparison["a"], comparison["b"]
    sections = [Section("Figures", [_table(comparison["metrics"], classes=False)], note=_method(comparison))]
    if comparison["classes"]:
        height = matrix_height(len(comparison["classes"]))
        note = (
            "IoU of B minus A with its 95 % interval. Filled: more than chance over all classes together (Holm, 5 %)."
        )
        parts: list[Part] = [
            Chart("classes", _class_chart(comparison["classes"]), height),
            _table(comparison["classes"], classes=True),
        ]
        sections.append(Section("Classes", parts, note=note))
    score = "mean IoU" if comparison["classes"] else "confidence"
    ends: list[Part] = [_different(comparison["most_different"], score)]
    if stills:
        ends += [*([legend] if legend else []), *stills]
    sections.append(Section("Frames that differ most", ends, note=_still_note(bool(stills))))
    return Report(
        title="Comparison",
        lead=f"A: {a['model']['name']} on {a['input']}. B: {b['model']['name']} on {b['input']}. "
        f"{comparison['frames']} common frames.",
        headlines=[_headline(entry) for entry in comparison["metrics"] if entry["difference"] is not None][:8],
        sections=sections,
        facts={name: _facts(each) for name, each in (("A", a), ("B", b))},
        notes=[*notes, *_missing(comparison)],
    )


def _method(comparison: Mapping[str, Any]) -> str:
    if all(entry["p"] is None for entry in comparison["metrics"]):
        return (
            f"B minus A. {comparison['blocks']} blocks of neighbouring frames are too few to tell chance from change."
        )
    return (
        "B minus A; 95 % interval and probability of a difference at least that large by chance, from "
        f"{comparison['draws']} draws of {comparison['blocks']} blocks of neighbouring frames, the same for both runs."
    )


def _table(entries: Sequence[Mapping[str, Any]], *, classes: bool) -> Table:
    rows = []
    for entry in entries:
        name = entry["name"] if classes else _NAMES[entry["name"]]
        plain = entry["name"] in _PLAIN and not classes
        low, high = (_text(entry[key], plain=plain, sign=True) for key in ("low", "high"))
        rows.append([
            name if plain else f"{name}, %",
            _text(entry["a"], plain=plain),
            _text(entry["b"], plain=plain),
            _text(entry["difference"], plain=plain, sign=True),
            "-" if entry["low"] is None else f"{low} to {high}",
            "-" if entry["p"] is None else f"{entry['p']:.3f}",
        ])  # fmt: skip
    return Table(["", "A", "B", "B - A", "95 % interval", "p"], rows)


def _class_chart(entries: Sequence[Mapping[str, Any]]) -> go.Figure:
    figure = go.Figure()
    shown = [entry for entry in entries if entry["difference"] is not None]
    figure.add_scatter(
        y=[entry["name"] for entry in shown],
        x=[round(100 * entry["difference"], 2) for entry in shown],
        mode="markers",
        marker={
            "size": 11,
            "color": ["#b03a3a" if entry["difference"] < 0 else "#2c7a45" for entry in shown],
            "symbol": ["circle" if entry["significant"] else "circle-open" for entry in shown],
            "line": {"width": 2},
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [_reach(entry, "high") for entry in shown],
            "arrayminus": [_reach(entry, "low") for entry in shown],
            "color": "#66707c",
            "thickness": 1.5,
        },
        hovertemplate="%{y}: %{x:+.1f}<extra></extra>",
    )
    figure.add_vline(x=0, line={"color": "#1d232b", "width": 1})
    figure.update_xaxes(title="IoU, B minus A, points")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def _reach(entry: Mapping[str, Any], end: str) -> float:
    return 0.0 if entry[end] is None else round(100 * abs(entry[end] - entry["difference"]), 2)


def _different(frames: Sequence[Mapping[str, Any]], score: str) -> Table:
    rows = [
        [
            " ".join(str(part) for part in (frame["bag"], frame["topic"], frame["index"]) if part != ""),
            "-" if frame["time_s"] is None else f"{frame['time_s']:.2f}",
            percent(frame["a"]),
            percent(frame["b"]),
            f"{100 * frame['difference']:+.1f}",
        ]
        for frame in frames
    ]
    return Table(["frame", "time, s", f"{score} A, %", "B, %", "B - A"], rows)


def _still_note(has_stills: bool) -> str:
    return (
        "Picture, label where there is one, what A says, what B says; white lines hatch the wrong pixels."
        if has_stills
        else ""
    )


def _headline(entry: Mapping[str, Any]) -> Headline:
    plain = entry["name"] in _PLAIN
    better = (entry["difference"] > 0) != (entry["name"] in _GREATER_IS_WORSE)
    sure = entry["p"] is not None and entry["p"] <= 0.05
    unit = "" if plain else " points"
    value = _text(entry["difference"], plain=plain, sign=True) + unit
    return Headline(f"{_NAMES[entry['name']]}, B - A", value, "" if not sure else "good" if better else "bad")


def _text(value: float | None, *, plain: bool, sign: bool = False) -> str:
    if value is None:
        return "-"
    scaled = value if plain else 100 * value
    return f"{scaled:+.2f}" if sign else f"{scaled:.2f}"


def _missing(comparison: Mapping[str, Any]) -> list[str]:
    return [
        f"{comparison[key]} frames are in {name} alone and were left out."
        for key, name in (("frames_only_a", "A"), ("frames_only_b", "B"))
        if comparison[key]
    ]


def _facts(run: Mapping[str, Any]) -> dict[str, str]:
    return {"folder": run["folder"], "input": run["input"], **{key: str(value) for key, value in run["model"].items()}}
