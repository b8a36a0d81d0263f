"""README says what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="needs the source checkout")


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_of_every_page_are_up_to_date(tables):
    for page, of_page in tables.PAGES.items():
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text, of_page()) == text, f"{page.name}: run `make docs`"


def test_measured_rows_become_a_table(tables):
    frame = {
        "what": "frame", "model": "small", "device": "cpu", "device_name": "CPU X", "threads": 2, "size": "1280x720",
        "batch": 1, "precision": "float32", "ms": {"p50": 250.04, "p95": 300.0}, "peak_rss_mb": 700.2,
    }  # fmt: skip
    content = {"environment": {"date": "2026-01-02"}, "rows": [frame, {"what": "start"}]}

    lines = tables.speed([("x.json", content)]).splitlines()

    assert len(lines) == 3
    assert lines[2] == (
        "| `small`, float32, all steps | CPU X, 2 threads | 1280x720 | 1 | 250.0 | 300.0 | 700 "
        "| [2026-01-02](docs/benchmarks/x.json) |"
    )


def test_windows_of_a_gpu_that_was_shared_are_no_figures_to_show(tables):
    window = {
        "what": "window", "model": "eva02-l", "device": "cuda:0", "device_name": "GPU X", "size": "512x512",
        "batch": 8, "precision": "float16", "backend": "graph", "weights": "random", "gpu": "quiet",
        "ms": {"p50": 12.5}, "peak_gpu_mb": 1930,
    }  # fmt: skip
    rows = [window, window | {"gpu": "shared with a training"}]

    lines = tables.speed([("x.json", {"environment": {"date": "2026-01-02"}, "rows": rows})]).splitlines()

    assert lines[2:] == [
        "| `eva02-l`, random weights, float16, network alone, graph | GPU X | 512x512 | 8 | 12.50 | - | 1930 "
        "| [2026-01-02](docs/benchmarks/x.json) |"
    ]


def test_evaluation_becomes_a_row(tables):
    content = {
        "input": "camvid/dusk", "frames": 124, "model": {"name": "small"}, "miou": 0.625, "road": {"iou": None},
        "pixel_accuracy": 0.9,
    }  # fmt: skip

    row = tables.accuracy([("dusk.json", content)]).splitlines()[2]

    assert row == "| [camvid/dusk](docs/benchmarks/dusk.json) | 124 | `small` | 62.5 | - | 90.0 |"


def test_missing_mark_is_an_error(tables):
    with pytest.raises(ValueError, match="<!-- speed -->"):
        tables.filled("no mark", {"speed": "table"})


@pytest.mark.parametrize(
    "document",
    ["README.md", "CONTRIBUTING.md", "docs/training.md", "docs/drivable.md", "docs/node.md", "docs/recipes.md"],
)
def test_links_lead_to_files(document):
    path = ROOT / document
    text = path.read_text(encoding="utf-8")

    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (path.parent / target).exists(), f"{document} links to {target}"
