"""`mfuser train` refuses bad input with one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mfuser_ros.commands.train import train
from mfuser_ros.errors import MFuserError

ROOT = Path(__file__).parents[2]
SMALL = str(ROOT / "config" / "train" / "small.yaml")


@pytest.fixture
def app() -> typer.Typer:
    application = typer.Typer()
    application.command()(train)
    return application


@pytest.mark.parametrize(
    ("recipe", "more", "message"),
    [
        ("none.yaml", [], "none.yaml: cannot be read"),
        (SMALL, ["--device", "tpu"], "device 'tpu'"),
        (SMALL, [], "precision bf16: cpu has none"),
        (SMALL, ["--precision", "fp16"], "small.yaml: precision: Input should be 'bf16' or 'fp32'"),
        (SMALL, ["--precision", "fp32"], "cityscapes256/val: neither val.tar nor a folder"),
    ],
)
def test_bad_input_is_named_in_one_line(
    app: typer.Typer, tmp_path: Path, recipe: str, more: list[str], message: str
) -> None:
    folders = ["--data", tmp_path, "--towers", tmp_path, "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, [*map(str, [recipe, *folders, "--device", "cpu", *more])])
    assert isinstance(result.exception, MFuserError)  # which the command turns into exit code 2
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()
