"""The measured table of the fusions' costs: what is counted, and what the command writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from mfuser_ros.commands.info import info
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.evaluation import scaling

TINY = scaling.Size(width=32, rows=4, columns=3, class_token=True)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def points() -> list[scaling.Point]:
    return list(scaling.measure(TINY, CPU, factors=(0.5, 1.0, 64.0)))


def test_every_fusion_of_two_towers_is_measured_at_every_number_of_tokens(points: list[scaling.Point]) -> None:
    assert [(point.kind, point.factor) for point in points] == [
        (kind, factor) for kind in scaling.KINDS for factor in (0.5, 1.0, 64.0)
    ]
    assert [point.tokens for point in points[:3]] == [2 * (1 + 6), 2 * (1 + 12), 2 * (1 + 768)]
    assert all(0 < point.least_ms <= point.ms and point.calls >= 1 for point in points)
    assert all(point.processor_ms is not None and point.processor_ms > 0 for point in points)


def test_flops_are_those_of_one_picture(points: list[scaling.Point]) -> None:
    # two for each multiplication: four maps of width 32, and every token with every one twice
    by_hand = [2 * (4 * n * 32**2 + 2 * n * n * 32) / 1e9 for n in (14, 26, 1538)]
    assert [point.gflops for point in points if point.kind == "self-attention"] == pytest.approx(by_hand)


def test_mvfuser_is_linear_in_the_tokens_and_attention_grows_with_their_square(points: list[scaling.Point]) -> None:
    assert scaling.growth(points, "mvfuser", "gflops") == pytest.approx(1)
    # by hand, from 26 to 1538 tokens of width 32: 4 n 32^2 + 2 n^2 32
    first, second = (4 * n * 32**2 + 2 * n * n * 32 for n in (26, 1538))
    expected = math.log(second / first) / math.log(1538 / 26)
    longest = [point for point in points if point.factor >= 1]
    assert scaling.growth(longest, "self-attention", "gflops") == pytest.approx(expected)


def test_factor_that_splits_a_row_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"factor 0\.3 of 4 rows"):
        list(scaling.measure(TINY, CPU, factors=(0.3,)))


@pytest.fixture
def app() -> typer.Typer:
    application = typer.Typer()
    application.command()(info)
    return application


def test_command_prints_writes_and_draws(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(scaling.SIZES, "tiny", scaling.Size(16, 2, 1, class_token=False))
    arguments = ["tiny", "--table", "scaling", "--device", "cpu", "--json", tmp_path / "new" / "scaling.json",
                 "--plot", tmp_path / "scaling.png"]  # fmt: skip
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)

    assert result.exit_code == 0
    content = json.loads((tmp_path / "new" / "scaling.json").read_text())
    assert len(content["fusions"]) == 7 * 5
    assert content["fusions"][-1]["tokens"] == 2 * 16
    assert content["environment"]["torch"] == torch.__version__
    assert content["precision"] == "float32"
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert "separate-mvfuser" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clip-l", "--table", "scaling"], "clip-l: its fusion is not measured: choose one of small, eva02-l"),
        (["--plot", "x.png"], "belong to --table scaling"),
        (["--table", "efficiency", "--json", "x.json"], "belong to --table scaling"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(app: typer.Typer, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ConfigurationError)
    assert words in str(result.exception)
