"""Training that is shared between processes, and training that is killed: real processes, started as a user does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mfuser_ros.checkpoints import load_model
from mfuser_ros.training.config import TrainConfig
from mfuser_ros.training.loop import Limits, train
from mfuser_ros.training.saving import STATE

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
DEADLINE_S = 240.0


@pytest.fixture
def command(recipe: TrainConfig, data: Path, towers: Path, tmp_path: Path) -> list[str]:
    """`train` with the tiny recipe, to be run in a process of its own; --out and --steps are missing."""
    (tmp_path / "tiny.yaml").write_text(json.dumps(recipe.model_dump(mode="json")))  # JSON is YAML
    arguments = [tmp_path / "tiny.yaml", "--data", data, "--towers", towers, "--device", "cpu"]
    return ["-m", "mfuser_ros.commands.app", "train", *map(str, arguments)]


@pytest.fixture
def recipe(recipe: TrainConfig) -> TrainConfig:
    """Two samples of each source, so that two processes can share them; everything is written after each step."""
    content = recipe.model_dump()
    content["sources"] = [{**source, "samples": 2} for source in content["sources"]]
    content |= {"log_steps": 1, "save_steps": 1, "validation": {**content["validation"], "minutes": None, "steps": 2}}
    return TrainConfig.model_validate(content)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def _log(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if "total" in row]


def test_two_processes_have_the_losses_of_one(
    recipe: TrainConfig, command: list[str], data: Path, towers: Path, tmp_path: Path
) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = [sys.executable, *torchrun, *command, "--out", str(tmp_path / "two"), "--steps", "3"]
    with subprocess.Popen(both, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        train(recipe, data=data, towers=towers, out=tmp_path / "one", device=CPU, limits=Limits(steps=3))
        output, _ = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 0, output

    one, two = _log(tmp_path / "one"), _log(tmp_path / "two")
    assert [row["step"] for row in two] == [1, 2, 3]
    # the first step differs by the order of sums alone; Adam then divides tiny gradients by their own size
    for before, after, tolerance in zip(one, two, (1e-5, 1e-3, 1e-3), strict=True):
        for name in ("total", "marginal", "classes", "mask", "dice", "alignment", "gradient_norm"):
            assert after[name] == pytest.approx(before[name], rel=tolerance), (before["step"], name)
