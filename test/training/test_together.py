"""Trainings side by side are the trainings that they would be alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mfuser_ros.training.config import TrainConfig
from mfuser_ros.training.loop import Limits
from mfuser_ros.training.together import Row, Together, train_together

CPU = torch.device("cpu")


@pytest.fixture
def rows(recipe: TrainConfig) -> list[Row]:
    """The same recipe with two seeds, the second of them at another rate."""
    content = recipe.model_dump()
    content["seed"], content["optimizer"]["rate"] = recipe.seed + 1, 2 * recipe.optimizer.rate
    return [Row("first", recipe), Row("second", TrainConfig.model_validate(content))]


def test_each_row_ends_with_the_weights_that_it_gets_alone(rows, data, towers, tmp_path):
    def run(chosen: list[Row], out: Path) -> list[str]:
        said: list[str] = []
        train_together(
            chosen, data=data, towers=towers, out=out, device=CPU, limits=Limits(steps=2), report=said.append
        )
        return said

    (line,) = run(rows, tmp_path / "both")
    for row in rows:
        run([row], tmp_path / "alone")

    assert line.startswith("step 2")
    assert all(row.name in line for row in rows)
    weights = {}
    for row in rows:
        both, alone = (load_file(tmp_path / kind / row.name / "small.safetensors") for kind in ("both", "alone"))
        assert both.keys() == alone.keys()
        assert all(torch.equal(both[name], alone[name]) for name in both)
        logs = [(tmp_path / kind / row.name / "log.jsonl").read_text(encoding="utf-8") for kind in ("both", "alone")]
        together, single = (json.loads(log.splitlines()[-1]) for log in logs)
        assert together.pop("elapsed_s") > 0
        assert single.pop("elapsed_s") > 0
        assert together == single
        weights[row.name] = both
    assert any(not torch.equal(weights["first"][name], value) for name, value in weights["second"].items())


def test_draws_of_one_row_do_not_move_those_of_another():
    class Drawing:
        """A step that draws numbers and nothing else."""

        def __init__(self, count: int) -> None:
            self.count, self.drawn = count, []

        def __call__(self) -> None:
            self.drawn += torch.rand(self.count).tolist()

    first, second = Drawing(1), Drawing(3)
    together = Together([first, second], [5, 5])  # type: ignore[list-item]
    for _ in range(3):
        together()

    torch.manual_seed(5)
    assert second.drawn == torch.rand(3).tolist() + torch.rand(3).tolist() + torch.rand(3).tolist()
    torch.manual_seed(5)
    assert first.drawn == [float(torch.rand(1)) for _ in range(3)]
