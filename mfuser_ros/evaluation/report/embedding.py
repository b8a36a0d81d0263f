"""What a page carries inside: pictures as data URIs, charts as HTML, templates of this package."""

from __future__ import annotations

import base64
from importlib import resources

import cv2
import jinja2
import numpy as np
import plotly.graph_objects as go

PICTURE_WIDTH = 1280  # pixels
_QUALITY = 88


def picture_uri(picture: np.ndarray, *, width: int = PICTURE_WIDTH) -> str:
    """A picture, uint8 RGB (H, W, 3), as a data URI: JPEG, at most `width` pixels wide."""
    height = picture.shape[0]
    if picture.shape[1] > width:
        size = (width, max(1, round(height * width / picture.shape[1])))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def chart_html(figure: go.Figure, name: str, *, height: int = 380) -> str:
    """A chart as a piece of HTML with the id ``chart-NAME``; the page must bring plotly.js.

    Args:
        figure: changed to the look of our pages.
        name: of the chart on its page.
        height: pixels.
    """
    figure.update_layout(
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 16, "b": 50},
        height=height,
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    text = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"chart-{name}",
        config={"displaylogo": False, "responsive": True},
    )
    return str(text)


def page_template(name: str) -> jinja2.Template:
    """A template of mfuser_ros.evaluation by its path there, such as ``report/report.html.j2``; text is escaped."""
    root = resources.files("mfuser_ros.evaluation")
    loader = jinja2.FunctionLoader(lambda path: root.joinpath(path).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, loader=loader
    )  # fmt: skip
    return environment.get_template(name)
