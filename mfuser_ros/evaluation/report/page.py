"""A report page put together from parts: figures at the top, sections with charts, tables, pictures, facts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mfuser_ros.evaluation.report.embedding import chart_html, page_template, picture_uri


@dataclass(frozen=True, eq=False)
class Still:
    """A picture of a page.

    Attributes:
        picture: uint8 RGB (H, W, 3).
        caption: what it shows.
        anchor: id on the page, so that a chart or table may link to ``#anchor``; empty: none.
    """

    picture: np.ndarray
    caption: str
    anchor: str = ""


@dataclass(frozen=True, eq=False)
class Chart:
    """A plotly figure; `name` is unique on the page and gives the id ``chart-NAME``; height in pixels.

    A click on it moves the film called `film`, if there is one.
    """

    name: str
    figure: go.Figure
    height: int = 380
    film: str = ""


@dataclass(frozen=True, eq=False)
class Film:
    """Pictures of a recording under a slider; a click into a chart that names the film shows the nearest one.

    Attributes:
        name: unique on the page.
        frames: JPEG file, caption and place on the x axis of the charts, in the order of the places.
    """

    name: str
    frames: Sequence[tuple[bytes, str, float]]


@dataclass(frozen=True)
class Table:
    """Rows of text; all columns but the first are set as numbers, to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Legend:
    """Names with their colours (RGB, 0..255)."""

    entries: Sequence[tuple[str, tuple[int, int, int]]]


Part = Still | Film | Chart | Table | Legend


@dataclass(frozen=True, eq=False)
class Section:
    """A heading, a sentence that explains (or none), and what it shows, in this order."""

    heading: str
    parts: Sequence[Part]
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """A number at the top of a page; `verdict` colours it where a limit was stated."""

    name: str
    value: str
    verdict: Literal["", "good", "bad"] = ""


@dataclass(frozen=True, eq=False)
class Report:
    """A whole page.

    Attributes:
        title: heading.
        lead: what was evaluated on what, one sentence.
        headlines: numbers at the top.
        notes: what a reader must know before trusting the numbers, such as a missing label.
        sections: the body.
        facts: tables at the end: heading -> name -> value.
    """

    title: str
    lead: str
    headlines: Sequence[Headline]
    sections: Sequence[Section]
    facts: Mapping[str, Mapping[str, str]]
    notes: Sequence[str] = field(default=())


def render(report: Report) -> str:
    """The page as HTML text; it asks the network for nothing."""
    return page_template("report/report.html.j2").render(
        report=report,
        sections=[
            {"heading": section.heading, "note": section.note, "parts": [_filled(part) for part in section.parts]}
            for section in report.sections
        ],
        plotly=get_plotlyjs() if any(isinstance(part, Chart) for part in _parts(report)) else "",
    )


def write_report(report: Report, folder: Path) -> Path:
    """Write report.html into a folder, which is made if need be; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    path.write_text(render(report), encoding="utf-8")
    return path


def _parts(report: Report) -> list[Part]:
    return [part for section in report.sections for part in section.parts]


def _filled(part: Part) -> dict[str, Any]:  # what the template wants differs from part to part
    if isinstance(part, Still):
        return {"kind": "still", "source": picture_uri(part.picture), "caption": part.caption, "anchor": part.anchor}
    if isinstance(part, Chart):
        html = chart_html(part.figure, part.name, height=part.height)
        return {"kind": "chart", "html": html, "film": part.film}
    if isinstance(part, Film):
        frames = [
            {"jpeg": base64.b64encode(jpeg).decode("ascii"), "text": text, "x": x} for jpeg, text, x in part.frames
        ]
        return {"kind": "film", "name": part.name, "frames": frames}
    if isinstance(part, Table):
        return {"kind": "table", "columns": part.columns, "rows": part.rows}
    return {"kind": "legend", "entries": [(name, f"rgb{colour}") for name, colour in part.entries]}
