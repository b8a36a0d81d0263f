"""A model with random weights for the commands: what it says does not matter, how it is handled does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import ModelCard, save_model
from mfuser_ros.commands.app import main
from mfuser_ros.network.config import SMALL
from mfuser_ros.network.model import MFuser

REPOSITORY = Path(__file__).resolve().parents[2]


class Finished(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def random_model(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    architecture = SMALL.model_copy(update={"input": SMALL.input.model_copy(update={"long_side": 96})})
    card = ModelCard(
        name="random",
        architecture=architecture,
        vocabulary=vocabulary.load().names,
        threshold=0.07,
        temperature=0.2,  # random scores are nearly equal; this spreads them
        licence="CC0-1.0",
        provenance="random weights, seed 1",
    )
    save_model(MFuser(architecture), card, path)
    return path


@pytest.fixture(scope="session")
def mfuser_process() -> Callable[..., subprocess.Popen[str]]:
    """Starts the real command as a user does, in a process of its own."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        code = "from mfuser_ros.commands.app import main; main()"
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def mfuser(monkeypatch, capfd) -> Callable[..., Finished]:
    """Runs the real command in this process, which has paid for the import of torch already."""

    def run(*arguments: object) -> Finished:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["mfuser", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output, errors = capfd.readouterr()
        return Finished(ended.value.code or 0, output, errors)

    return run
