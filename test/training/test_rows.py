"""Rivals and rows of the comparison as docs/alternatives.md has them, through `mfuser train` and `mfuser evaluate`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from mfuser_ros.checkpoints import load_model
from mfuser_ros.commands.evaluate import evaluate
from mfuser_ros.commands.train import train
from mfuser_ros.training.config import TrainConfig
from mfuser_ros.training.start import initial_model

ROOT = Path(__file__).parents[2]
ROWS = {
    cells[1].strip(): tuple(yaml.safe_load(cell.strip(" `") or "{}") for cell in cells[2:4])
    for cells in (line.split("|") for line in (ROOT / "docs" / "alternatives.md").read_text().splitlines())
    if len(cells) == 5 and "{" in cells[2]
}


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**base, **{key: {**base[key], **value} for key, value in changes.items()}}


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    application = typer.Typer()
    application.command()(train)
    application.command()(evaluate)
    return application


@pytest.mark.parametrize("row", ROWS)
def test_row_trains_and_is_evaluated(row, app, recipe, data, towers, tmp_path):
    changes, besides = ROWS[row]
    content = _merged(recipe.model_dump(mode="json"), {**besides})
    content["changes"] = changes
    content["validation"] = {"dataset": "cityscapes256", "split": "train", "every_nth": 3, "minutes": 3}
    (tmp_path / "row.yaml").write_text(yaml.safe_dump(content))
    before = initial_model(TrainConfig.model_validate(content), towers).state_dict()

    arguments = ["train", tmp_path / "row.yaml", "--data", data, "--towers", towers, "--out", tmp_path / "out",
                 "--device", "cpu", "--steps", 2, "--quiet"]  # fmt: skip
    trained = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert trained.exit_code == 0, trained.output
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert log[0]["skipped"] == 0
    assert all(math.isfinite(value) for value in log[0].values())
    assert "cityscapes256/train_miou" in log[-1]

    model = tmp_path / "out" / "small.safetensors"
    arguments = ["evaluate", "camvid/day", "--data", data, "--model", model, "--device", "cpu", "--size", "96x64",
                 "--out", tmp_path / "scores", "--quiet"]  # fmt: skip
    scored = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert scored.exit_code == 0, scored.output
    assert 0 <= json.loads((tmp_path / "scores" / "summary.json").read_text())["miou"] <= 1

    network, file = load_model(model)
    after = network.state_dict()
    assert set(after) == set(before)
    moved = {name for name in after if not torch.equal(after[name].float(), before[name].half().float())}  # of halves
    parts = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.ndim > 1}
    assert {name.split(".")[0] for name in moved} == parts
    assert [name for name in ("vfm", "vlm") if name in parts] == list(file.architecture.tower_names)
    terms = {name: log[0][name] for name in ("alignment", "language", "vision")}
    assert (terms["language"] > 0) == (terms["vision"] > 0) == row.startswith("tqdm")
    assert (terms["alignment"] == 0) == row.startswith("Rein")
