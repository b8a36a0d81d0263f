import re
from html.parser import HTMLParser

import numpy as np

from mfuser_ros import vocabulary
from mfuser_ros.evaluation.drive.page import render_page
from mfuser_ros.evaluation.drive.record import DriveRecord, FrameRecord
from mfuser_ros.evaluation.report.page import Still


class Outline(HTMLParser):
    """Headings, table cells and resources of a page; scripts are left out."""

    def __init__(self, page):
        super().__init__()
        self.headings, self.cells, self.sources, self._where = [], [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self._where = self._where if tag == "span" else tag  # a coloured chip stands before the name of a class
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        if self._where in ("h1", "h2") and data.strip():
            self.headings.append(data.strip())
        if self._where in ("td", "th") and data.strip():
            self.cells.append(data.strip())


def page(*, with_grid=True, title="A drive"):
    shares = np.zeros(20)
    shares[[0, 10]] = 0.25, 0.75
    distances = (10.0, 20.0) if with_grid else (None, None)
    frames = [
        FrameRecord(0.12 * index, ms, shares, 0.5, distance, distance)
        for index, (ms, distance) in enumerate(zip((100.0, 300.0), distances, strict=True))
    ]
    return render_page(
        DriveRecord(vocabulary.load(), frames),
        title=title,
        stills=[Still(np.zeros((20, 30, 3), np.uint8), "Frame 1")],
        times_ms={"inference": [80.0, 90.0], "postprocess": []},
        facts={"Model": {"name": "small"}},
        pose_note="The pose is an estimate.",
    )


def test_page_holds_charts_figures_and_facts():
    text = page()
    outline = Outline(text)
    for name in ("chart-shares", "chart-latency", "chart-drivable"):
        assert f'id="{name}"' in text
        assert re.search(rf'Plotly\.newPlot\(\s*"{name}"', text)
    assert outline.headings[0] == "A drive"
    assert "Drivable area over time" in outline.headings
    row = outline.cells.index("round trip")
    assert outline.cells[row : row + 4] == ["round trip", "200.0", "290.0", "298.0"]  # linear between 100 and 300
    row = outline.cells.index("sky")
    assert outline.cells[row : row + 4] == ["sky", "75.00 %", "road", "25.00 %"]
    assert "postprocess" not in outline.cells
    assert "The pose is an estimate." in text


def test_page_asks_the_network_for_nothing():
    text = page()
    assert all(source.startswith("data:image/jpeg;base64,") for source in Outline(text).sources)
    assert "plotly.js v" in text  # the library itself is inside


def test_drive_without_a_grid_has_no_chart_of_it():
    assert "chart-drivable" not in page(with_grid=False)


def test_text_from_outside_is_escaped():
    assert "<h1>&lt;b&gt;</h1>" in page(title="<b>")
