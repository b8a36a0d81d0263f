"""The summary page of a drive: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mfuser_ros.evaluation.drive.record import DriveRecord, Percentiles, percentiles
from mfuser_ros.evaluation.report.embedding import chart_html, page_template, picture_uri
from mfuser_ros.evaluation.report.page import Still
from mfuser_ros.vocabulary import Vocabulary

SMALLEST_SHARE = 0.001
"""Classes below this share of all pixels are left out of the chart; the table has them."""

SMALLEST_ROW = 5e-5
"""Classes below this share would read 0.00 % in the table."""


def render_page(
    record: DriveRecord,
    *,
    title: str,
    stills: Sequence[Still],
    times_ms: Mapping[str, list[float]],
    facts: Mapping[str, Mapping[str, str]],
    pose_note: str | None,
) -> str:
    """The page as HTML text with pictures, charts and plotly.js inside.

    Args:
        record: figures of the drive, one frame or more.
        title: heading.
        stills: pictures to show.
        times_ms: what the node says of its own work, milliseconds, by the name of the step.
        facts: tables below the charts: heading -> name -> value.
        pose_note: where the camera's pose is from; None without a grid.
    """
    template = page_template("drive/summary.html.j2")
    steps = {"round trip": record.round_trip()}
    steps |= {name: percentiles(values) for name, values in times_ms.items() if values}
    drivable = [frame.drivable_m for frame in record.frames if frame.drivable_m is not None]
    confidences = [frame.confidence for frame in record.frames if frame.confidence is not None]
    charts = [
        ("Class shares over time", "shares", _shares_chart(record)),
        ("Latency", "latency", _latency_chart(record, times_ms)),
    ]
    if drivable:
        charts.append(("Drivable area over time", "drivable", _drivable_chart(record)))
    return template.render(
        title=title,
        frames=len(record.frames),
        seconds=record.frames[-1].time_s,
        headline=_headline(steps["round trip"], drivable, confidences),
        stills=[{"source": picture_uri(still.picture), "caption": still.caption} for still in stills],
        charts=[{"heading": heading, "html": chart_html(figure, name)} for heading, name, figure in charts],
        plotly=get_plotlyjs(),
        steps=steps,
        shares=_share_rows(record),
        facts=facts,
        pose_note=pose_note,
    )


def _headline(round_trip: Percentiles, drivable: list[float], confidences: list[float]) -> list[tuple[str, str]]:
    entries = [("mask after (median)", f"{round_trip.p50:.0f} ms")]
    if drivable:
        entries.append(("free way ahead (median)", f"{np.median(drivable):.1f} m"))
    if confidences:
        entries.append(("mean confidence", f"{np.mean(confidences):.1%}"))
    return entries


def _share_rows(record: DriveRecord) -> list[tuple[str, str, float]]:
    """Name, CSS colour and mean share of the classes that were seen, largest first."""
    rows = [
        (name, colour, float(share))
        for (name, colour), share in zip(_named_colours(record.vocabulary), record.mean_shares(), strict=True)
    ]
    return sorted((row for row in rows if row[2] >= SMALLEST_ROW), key=lambda row: -row[2])


def _named_colours(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    named = [(entry.name, entry.colour) for entry in vocabulary.classes] + [("unknown", (0, 0, 0))]
    return [(name, f"rgb{colour}") for name, colour in named]


def _shares_chart(record: DriveRecord) -> go.Figure:
    times = [frame.time_s for frame in record.frames]
    shares = np.array([frame.shares for frame in record.frames])  # (frames, classes + 1)
    named = _named_colours(record.vocabulary)
    figure = go.Figure()
    for index in np.argsort(-shares.mean(axis=0)):
        if shares[:, index].mean() < SMALLEST_SHARE:
            continue
        name, colour = named[index]
        figure.add_scatter(
            x=times,
            y=(100 * shares[:, index]).round(3).tolist(),
            name=name,
            stackgroup="classes",
            mode="lines",
            line={"width": 0.5, "color": colour},
            fillcolor=colour,
            hovertemplate="%{y:.1f} %",
        )
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title="time in the recording, s")
    figure.update_yaxes(title="share of the pixels, %", range=[0, 100])
    return figure


def _latency_chart(record: DriveRecord, times_ms: Mapping[str, list[float]]) -> go.Figure:
    figure = go.Figure()
    colours = iter(("#2f6fb0", "#3f9a5c", "#c9822b", "#8a5fb5", "#b04a5a"))
    series = {"round trip": [frame.round_trip_ms for frame in record.frames], **times_ms}
    for name, values in series.items():
        if values:
            figure.add_box(
                x=np.round(values, 2).tolist(), name=name, marker={"color": next(colours)}, boxpoints="all", jitter=0.4
            )
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="milliseconds", rangemode="tozero")
    figure.update_yaxes(autorange="reversed")
    return figure


def _drivable_chart(record: DriveRecord) -> go.Figure:
    times = [frame.time_s for frame in record.frames]
    figure = go.Figure()
    figure.add_scatter(
        x=times,
        y=[frame.drivable_m for frame in record.frames],
        name="free way ahead",
        mode="lines+markers",
        line={"color": "#3f9a5c", "width": 2},
        marker={"size": 5},
        hovertemplate="%{y:.1f} m",
    )
    figure.add_scatter(
        x=times,
        y=[frame.free_m2 for frame in record.frames],
        name="free area",
        yaxis="y2",
        mode="lines",
        line={"color": "#2f6fb0", "width": 2, "dash": "dot"},
        hovertemplate="%{y:.0f} m²",
    )
    figure.update_xaxes(title="time in the recording, s")
    figure.update_layout(
        hovermode="x unified",
        yaxis={"title": "free way ahead, m", "rangemode": "tozero"},
        yaxis2={
            "title": "free area, m²",
            "rangemode": "tozero",
            "overlaying": "y",
            "tickmode": "auto",
            "side": "right",
            "showgrid": False,
        },
        legend={"orientation": "h", "y": 1.12},
    )
    return figure
