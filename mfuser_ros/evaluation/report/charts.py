"""Charts that every report shares: scores of the classes, the confusion matrix, how honest the confidence is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mfuser_ros.evaluation.metrics import BINS, Calibration

ROW_PX = 24
"""Height of one class in a chart, pixels."""


def class_bars(classes: Sequence[Mapping[str, Any]], colours: Sequence[tuple[int, int, int]]) -> go.Figure:
    """IoU of each class as a bar, with marks for precision and recall.

    Args:
        classes: the entries of `classes` in summary.json.
        colours: RGB of each of them.
    """
    names = [entry["name"] for entry in classes]
    figure = go.Figure()
    figure.add_bar(
        y=names,
        x=[_percent(entry["iou"]) for entry in classes],
        orientation="h",
        name="IoU",
        marker={"color": [f"rgb{colour}" for colour in colours], "line": {"color": "rgba(0,0,0,0.35)", "width": 1}},
        hovertemplate="%{y}: IoU %{x:.1f} %<extra></extra>",
    )
    for key, symbol in (("precision", "line-ns"), ("recall", "circle-open")):
        figure.add_scatter(
            y=names,
            x=[_percent(entry[key]) for entry in classes],
            mode="markers",
            name=key,
            marker={"symbol": symbol, "size": 11, "color": "#1d232b", "line": {"width": 2, "color": "#1d232b"}},
            hovertemplate=f"%{{y}}: {key} %{{x:.1f}} %<extra></extra>",
        )
    figure.update_xaxes(title="%", range=[0, 101], tickvals=list(range(0, 101, 20)))
    values = ["no pixel" if entry["iou"] is None else f"{100 * entry['iou']:.1f}" for entry in classes]
    words = [f"{name}  <b>{value}</b>" for name, value in zip(names, values, strict=True)]
    figure.update_yaxes(
        autorange="reversed", automargin=True, ticks="outside", ticklen=4, tickvals=names, ticktext=words
    )  # fmt: skip
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"})
    return figure


def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> go.Figure:
    """Share of the pixels of each label (row) that got each prediction (column), in percent.

    Args:
        counts: (C, C + 1) pixels; the last column is "unknown".
        names: of the C classes.
    """
    labelled = counts.sum(1, keepdims=True)
    share = np.divide(100.0 * counts, labelled, out=np.full(counts.shape, np.nan), where=labelled > 0)
    columns = [*names, "unknown"]
    if not counts[:, -1].any():
        share, columns = share[:, :-1], columns[:-1]
    figure = go.Figure()
    figure.add_heatmap(
        z=[[None if np.isnan(value) else round(float(value), 2) for value in row] for row in share],
        x=columns,
        y=list(names),
        zmin=0,
        zmax=100,
        colorscale=[[0, "#ffffff"], [0.1, "#d5e4f3"], [0.5, "#6a9fd0"], [1, "#12406f"]],
        text=[["" if np.isnan(value) or value < 0.5 else f"{value:.0f}" for value in row] for row in share],
        texttemplate="%{text}",
        xgap=1,
        ygap=1,
        hovertemplate="%{y} seen as %{x}: %{z:.2f} %<extra></extra>",
        colorbar={"title": {"text": "%"}, "thickness": 14},
    )
    figure.update_xaxes(title="prediction", side="bottom", automargin=True, tickangle=-45)
    figure.update_yaxes(title="label", autorange="reversed", automargin=True)
    figure.update_layout(plot_bgcolor="#eef0f2")
    return figure


def reliability(calibration: Calibration) -> go.Figure:
    """Share of right pixels against their confidence, bin by bin; an honest model follows the diagonal."""
    filled = calibration.pixels > 0
    pixels = calibration.pixels[filled]
    centres = (np.arange(BINS)[filled] + 0.5) * 100 / BINS
    figure = go.Figure()
    figure.add_bar(
        x=centres.tolist(),
        y=(100 * calibration.correct[filled] / pixels).tolist(),
        width=100 / BINS * 0.92,
        name="right pixels",
        marker={"color": "#6a9fd0"},
        customdata=(100 * pixels / max(pixels.sum(), 1)).tolist(),
        hovertemplate="confidence about %{x:.0f} %: right %{y:.1f} %, %{customdata:.1f} % of the pixels<extra></extra>",
    )
    figure.add_scatter(
        x=[0, 100], y=[0, 100], mode="lines", name="honest", line={"color": "#1d232b", "width": 1, "dash": "dot"}
    )
    figure.update_xaxes(title="confidence, %", range=[0, 100])
    figure.update_yaxes(title="right, %", range=[0, 100])
    figure.update_layout(legend={"orientation": "h", "y": 1.12})
    return figure


def matrix_height(classes: int) -> int:
    """Pixels that a chart with a row for each class needs."""
    return 130 + ROW_PX * max(classes, 4)


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)
