"""Training that is shared between processes, and training that is killed: real processes, started as a user does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    for before, after, tolerance in zip(one, two, (1e-5, 2e-4, 1e-3), strict=True):
        for name in ("total", "marginal", "classes", "mask", "dice", "alignment", "gradient_norm"):
            assert after[name] == pytest.approx(before[name], rel=tolerance), (before["step"], name)


def test_killed_training_resumes_bit_for_bit(
    recipe: TrainConfig, command: list[str], data: Path, towers: Path, tmp_path: Path, one_thread: None
) -> None:
    steps = 5
    killed = [sys.executable, *command, "--out", str(tmp_path / "killed"), "--steps", str(steps)]
    with subprocess.Popen(killed, env=_environment(), stdout=subprocess.PIPE, text=True) as run:
        whole = _trained(recipe, data, towers, tmp_path / "whole", steps, None)
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("step 3 "):  # its checkpoint is being written, or will be
                run.send_signal(signal.SIGKILL)
                break
    assert run.returncode == -signal.SIGKILL
    assert 2 <= torch.load(tmp_path / "killed" / STATE, weights_only=True)["step"] <= 4  # one interval at most is lost
    load_model(tmp_path / "killed" / "small.safetensors")  # whole, and the description is its own

    resumed = _trained(recipe, data, towers, tmp_path / "killed", steps, tmp_path / "killed" / STATE)

    assert list(whole) == list(resumed)
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    timeless = [[{k: v for k, v in row.items() if k not in CLOCKS} for row in _log(tmp_path / run)]
                for run in ("whole", "killed")]  # fmt: skip
    assert [row["step"] for row in timeless[1]] == [1, 2, 3, 4, 5]
    assert timeless[0] == timeless[1]
    assert not list((tmp_path / "whole").glob("*.part"))


CLOCKS = ("elapsed_s", "steps_per_s", "eta_s")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in the order of the other process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _trained(
    recipe: TrainConfig, data: Path, towers: Path, out: Path, steps: int, resume: Path | None
) -> dict[str, torch.Tensor]:
    """Every tensor of the last checkpoint."""
    train(recipe, data=data, towers=towers, out=out, device=CPU, limits=Limits(steps=steps), resume=resume)
    return dict(_tensors("", torch.load(out / STATE, weights_only=True)))


def _tensors(name: str, content: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        yield name, content
    elif isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _tensors(f"{name}.{key}", value)
