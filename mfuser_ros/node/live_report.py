"""The page of a live measurement: ages and drops in time, rates against drops, all figures in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from mfuser_ros.evaluation.report.page import Chart, Headline, Report, Section, Table
from mfuser_ros.node.live_figures import Played
from mfuser_ros.node.live_summary import live_notes
from mfuser_ros.node.peak import DROP_SHARE

POINTS = 2000
"""Marks of a line; of a longer bag each stands for the oldest of several masks."""

TICKS_HZ = [1, 2, 3, 5, 10, 20, 30, 60, 100]

AGE, DROP = "#2f6fb0", "#b03a3a"

COLUMNS = (
    "run", "wanted, Hz", "played, Hz", "masks, Hz", "dropped, %", "age p50, ms", "age p95, ms", "age p99, ms",
    "jitter, ms", "CPU, %", "memory, MB",
)  # fmt: skip


def live_report(summary: Mapping[str, Any], played: Mapping[str, Sequence[Played]]) -> Report:
    """The page.

    Args:
        summary: what summary.json holds.
        played: every picture at the bag's own rate, by camera.
    """
    figures = summary["live"]
    name = Path(summary["input"]).name
    sections = [
        Section(
            "Figures",
            [Table(COLUMNS, rows_of(figures))],
            note="Age: from the stamp of a picture, the moment when it is sent, until its mask is here. Jitter: "
            "standard deviation of the intervals between masks. CPU: of the node's process, in percent of one core.",
        ),
        *(_timeline(camera, pictures) for camera, pictures in played.items() if pictures),
    ]
    if figures["peak"] is not None:
        sections.append(_rates(figures))
    warm_up = figures["warm_up"]
    return Report(
        title=f"{name}, live: {summary['model']['name']}",
        lead=f"{figures['pictures']} pictures of {len(played)} camera{'s' if len(played) > 1 else ''} played to the "
        f"real node at the rate of the recording, after a warm-up of {warm_up['masks']} masks that do not count.",
        headlines=_headlines(summary),
        notes=live_notes(figures),
        sections=sections,
        facts={
            "Model": {key: str(value) for key, value in summary["model"].items()},
            "Settings": {key: str(value) for key, value in summary["settings"].items()},
            "Environment": {key: str(value) for key, value in summary["environment"].items()},
        },
    )


def rows_of(figures: Mapping[str, Any]) -> list[list[str]]:
    """A row of text for each run, in the order of `COLUMNS`: the bag's rate, its cameras, the peak, fixed rates."""
    runs: list[tuple[str, Mapping[str, Any]]] = [("bag's rate", figures)]
    if len(figures["cameras"]) > 1:
        runs += [(f"· {camera['name']}", camera) for camera in figures["cameras"]]
    peak = figures["peak"]
    if peak is not None and peak["rate_hz"] is not None:
        runs.append((f"peak, {peak['rate_hz']:g} Hz", peak | {"rate_hz": peak["mask_rate_hz"]}))
    runs += [(entry["name"].replace("hz", " Hz"), entry) for entry in figures["fixed"]]
    return [[name, *_cells(run)] for name, run in runs]


def _cells(run: Mapping[str, Any]) -> list[str]:
    rates = [_text(run[key], 2) for key in ("wanted_hz", "played_hz", "rate_hz")]
    drops = _text(None if run["drop_share"] is None else 100 * run["drop_share"], 1)
    times = [_text(run[key], 0) for key in ("age_p50_ms", "age_p95_ms", "age_p99_ms", "jitter_ms")]
    return [*rates, drops, *times, _text(run.get("cpu_percent"), 0), _text(run.get("memory_mb"), 0)]


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _timeline(camera: str, pictures: Sequence[Played]) -> Section:
    """Ages of the masks, and the dropped pictures as marks on the time axis."""
    step = -(-len(pictures) // POINTS)
    ages: list[tuple[float, float]] = []
    drops: list[float] = []
    for start in range(0, len(pictures), step):
        part = pictures[start : start + step]
        found = [(picture.mask_s - picture.sent_s) * 1e3 for picture in part if picture.mask_s is not None]
        if found:
            ages.append((round(part[0].sent_s, 3), round(max(found), 1)))
        if len(found) < len(part):
            drops.append(round(part[0].sent_s, 3))
    figure = go.Figure()
    figure.add_scatter(
        x=[time_s for time_s, _ in ages],
        y=[age for _, age in ages],
        name="age of the mask",
        mode="lines+markers",
        line={"color": AGE, "width": 1},
        marker={"size": 5},
        hovertemplate="%{x:.2f} s: %{y:.0f} ms<extra></extra>",
    )
    figure.add_scatter(
        x=drops,
        y=[0] * len(drops),
        name="dropped",
        mode="markers",
        marker={"color": DROP, "symbol": "x-thin-open", "size": 7},
        cliponaxis=False,
        hovertemplate="%{x:.2f} s: no mask<extra></extra>",
    )
    figure.update_xaxes(title="time at which the picture was sent, s")
    figure.update_yaxes(title="ms", rangemode="tozero")
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"})
    several = f" Each mark stands for {step} pictures: the oldest mask, a cross for any drop." if step > 1 else ""
    return Section(
        f"{camera} in time",
        [Chart(f"ages-{camera}", figure, 320)],
        note=f"A cross is a picture without a mask: a newer one had come before the node was free.{several}",
    )


def _rates(figures: Mapping[str, Any]) -> Section:
    """Lost pictures against the rate of the player."""
    peak = figures["peak"]
    figure = go.Figure()
    for name, entries, symbol in (
        ("search", peak["probes"], "circle-open"),
        ("fixed rates", figures["fixed"], "diamond"),
    ):
        points = [entry for entry in entries if entry["drop_share"] is not None]
        figure.add_scatter(
            x=[entry["wanted_hz"] for entry in points],
            y=[round(100 * entry["drop_share"], 2) for entry in points],
            customdata=[entry["rate_hz"] for entry in points],
            name=name,
            mode="markers",
            marker={"color": AGE if name == "search" else DROP, "symbol": symbol, "size": 9},
            hovertemplate="%{x:.2f} Hz: %{y:.1f} % dropped, %{customdata:.2f} masks a second<extra></extra>",
        )
    figure.add_hline(y=100 * DROP_SHARE, line={"color": "#1d232b", "width": 1, "dash": "dot"})
    figure.update_xaxes(title="pictures a second and camera", type="log", tickvals=TICKS_HZ, ticktext=TICKS_HZ)
    figure.update_yaxes(title="dropped, %", range=[-3, 103])
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"})
    found = "no rate was kept up with" if peak["rate_hz"] is None else f"the peak is {peak['rate_hz']:g} Hz"
    return Section(
        "Highest rate",
        [Chart("rates", figure, 320)],
        note=f"Bisection, then small steps upwards, until 5 % of the pictures are lost (dotted): {found}. After it the "
        "fixed rates, kept up with or not.",
    )


def _headlines(summary: Mapping[str, Any]) -> list[Headline]:
    figures, peak = summary["live"], summary["live"]["peak"]
    verdicts = [
        Headline(limit["limit"], "-" if limit["value"] is None else f"{limit['value']:.4g}",
                 "good" if limit["holds"] else "bad")
        for limit in summary["limits"]
    ]  # fmt: skip
    dropped = None if figures["drop_share"] is None else 100 * figures["drop_share"]
    headlines = [
        Headline("masks a second", f"{_text(figures['rate_hz'], 2)} of {_text(figures['played_hz'], 2)}"),
        Headline("pictures dropped", f"{_text(dropped, 1)} %"),
        Headline("age of a mask (median)", f"{_text(figures['age_p50_ms'], 0)} ms"),
        Headline("age, 99 of 100 are younger", f"{_text(figures['age_p99_ms'], 0)} ms"),
        Headline("jitter", f"{_text(figures['jitter_ms'], 0)} ms"),
        Headline("CPU of the node, of one core", f"{_text(figures['cpu_percent'], 0)} %"),
        Headline("memory of the node", f"{_text(figures['memory_mb'], 0)} MB"),
    ]
    if peak is not None:
        headlines.append(Headline("highest rate", "none" if peak["rate_hz"] is None else f"{peak['rate_hz']:g} Hz"))
    return [*verdicts, *headlines]
