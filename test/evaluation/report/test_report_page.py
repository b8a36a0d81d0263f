"""The parts of a report, as text and in a browser."""

from __future__ import annotations

import re

import numpy as np
import plotly.graph_objects as go
import pytest

from mfuser_ros.evaluation.metrics import Calibration
from mfuser_ros.evaluation.report.charts import class_bars, confusion_matrix, matrix_height, reliability
from mfuser_ros.evaluation.report.page import (
    Chart,
    Headline,
    Legend,
    Report,
    Section,
    Still,
    Table,
    render,
)
from mfuser_ros.evaluation.report.triptych import triptych

CLASSES = [
    {"name": "road", "iou": 0.9, "precision": 0.95, "recall": 0.94},
    {"name": "train", "iou": None, "precision": None, "recall": None},
]
COUNTS = np.array([[90, 10, 0], [0, 0, 0]])


def _report(**changes: object) -> Report:
    calibration = Calibration.empty()
    calibration.add(np.array([0.5, 0.95]), np.array([False, True]))
    parts = {
        "title": "A run",
        "lead": "Two pictures.",
        "headlines": [Headline("mean IoU", "90.0 %"), Headline("age", "40 ms", "bad")],
        "notes": ["No labels for frame 3."],
        "sections": [
            Section(
                "Classes",
                [
                    Chart("classes", class_bars(CLASSES, [(128, 64, 128), (0, 80, 100)]), matrix_height(2)),
                    Chart("confusion", confusion_matrix(COUNTS, ["road", "train"]), matrix_height(2)),
                    Chart("reliability", reliability(calibration)),
                    Table(["class", "IoU"], [["road", "90.0"]]),
                ],
                note="One matrix over the set.",
            ),
            Section("Worst", [Legend([("road", (1, 2, 3))]), Still(np.zeros((20, 30, 3), np.uint8), "a", "frame-1")]),
        ],
        "facts": {"Model": {"name": "small"}},
    }
    return Report(**(parts | changes))  # type: ignore[arg-type]


def test_page_holds_every_part_in_order():
    text = render(_report())
    places = [
        text.index(piece)
        for piece in (
            "<h1>A run</h1>", "Two pictures.", "<b>90.0 %</b>", 'class="bad"', "No labels for frame 3.",
            "<h2>Classes</h2>", "One matrix over the set.", 'id="chart-classes"', 'id="chart-confusion"',
            'id="chart-reliability"', '<td class="number">90.0</td>', "rgb(1, 2, 3)", 'id="frame-1"', "<th>name</th>",
        )
    ]  # fmt: skip
    assert places == sorted(places)


def test_page_asks_the_network_for_nothing():
    text = render(_report())
    assert re.findall(r'<(?:img|script|link)[^>]+(?:src|href)="(?!data:)[^"]*"', text) == []
    assert "plotly.js v" in text  # the library itself is inside


def test_page_without_charts_carries_no_library():
    assert len(render(_report(sections=[]))) < 10_000


def test_text_from_outside_is_escaped():
    text = render(_report(title="<b>", notes=["<script>"], facts={"x": {"y": "<i>"}}))
    assert "<h1>&lt;b&gt;</h1>" in text
    assert "&lt;script&gt;" in text
    assert "<i>" not in text


def test_confusion_is_shown_in_percent_of_the_label():
    figure = confusion_matrix(np.array([[90, 10, 0], [0, 0, 0]]), ["road", "train"])
    assert figure.data[0].z[0] == [90.0, 10.0]
    assert figure.data[0].z[1] == [None, None]  # a class that no label shows
    assert list(figure.data[0].x) == ["road", "train"]
    with_unknown = confusion_matrix(np.array([[90, 0, 10], [0, 0, 0]]), ["road", "train"])
    assert list(with_unknown.data[0].x) == ["road", "train", "unknown"]


def test_bars_say_which_class_has_no_pixel():
    figure = class_bars(CLASSES, [(128, 64, 128), (0, 80, 100)])
    assert list(figure.layout.yaxis.ticktext) == ["road  <b>90.0</b>", "train  <b>no pixel</b>"]
    assert list(figure.data[0].x) == [90.0, None]


def test_reliability_shows_the_share_of_right_pixels_of_a_bin():
    calibration = Calibration.empty()
    calibration.add(np.full(4, 0.95), np.array([True, True, True, False]))
    bars = reliability(calibration).data[0]
    assert list(bars.y) == [75.0]
    assert bars.x[0] == pytest.approx(100 * 14.5 / 15)


def test_triptych_marks_wrong_pixels_only():
    palette = np.zeros((256, 3), np.uint8)
    palette[0], palette[1] = (10, 20, 30), (200, 100, 50)
    label = np.zeros((60, 120), np.uint8)
    label[:, 80:] = 255
    prediction = np.zeros((60, 120), np.uint8)
    prediction[:, 40:] = 1  # right on the left third, wrong in the middle, not labelled on the right
    sheet = triptych(np.full((60, 120, 3), 99, np.uint8), label, prediction, palette, width=120)

    assert sheet.shape == (60, 3 * 120 + 2 * 6, 3)
    assert (sheet[:, :120] == 99).all()
    truth, answer = sheet[:, 126:246], sheet[:, 252:]
    assert (truth[:, :80] == palette[0]).all()
    assert (truth[:, 80:] == 0).all()
    assert (answer[:, :40] == palette[0]).all()
    assert (answer[:, 80:] == palette[1]).all()
    marked = (answer[:, 40:80] == 255).all(-1).mean()
    assert 0.1 < marked < 0.25


def test_triptych_without_a_label_has_two_panels():
    sheet = triptych(
        np.zeros((30, 60, 3), np.uint8), None, np.zeros((30, 60), np.uint8), np.zeros((256, 3), np.uint8), width=60
    )
    assert sheet.shape == (30, 126, 3)


def test_any_plotly_figure_is_a_chart():
    assert 'id="chart-own"' in render(_report(sections=[Section("Own", [Chart("own", go.Figure())])]))
