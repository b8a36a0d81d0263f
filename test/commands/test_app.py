"""The command as a whole: light to start, one line for what is wrong, the promised exit codes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import mfuser_ros
from mfuser_ros.commands.app import app

HEAVY = ("torch", "cv2", "rclpy", "plotly", "av", "timm", "rosbags", "numpy")
DEADLINE_S = 60


VERBS = [entry.callback.__name__ for entry in app.registered_commands] + [
    f"{group.name} {entry.callback.__name__}"
    for group in app.registered_groups
    for entry in group.typer_instance.registered_commands
]


def test_help_names_the_verbs(mfuser):
    finished = mfuser("--help")

    assert finished.returncode == 0
    for verb in ("segment", "evaluate", "train", "bench", "info", "bag", "demo"):
        assert f"\n  {verb} " in finished.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example(mfuser, verb):
    finished = mfuser(*verb.split(), "--help")

    assert finished.returncode == 0
    assert f"Example: mfuser {verb} " in finished.stdout


@pytest.mark.parametrize("module", ["mfuser_ros", "mfuser_ros.commands.app"])
def test_import_takes_nothing_heavy_along(module):
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert finished.stdout.split() == []


def test_version_is_printed(mfuser):
    assert mfuser("--version").stdout.strip() == mfuser_ros.__version__


def test_fault_of_the_input_is_one_line_and_exit_code_2(mfuser, tmp_path):
    finished = mfuser("info", tmp_path / "none.safetensors")

    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert "none.safetensors: no such file" in finished.stderr


def test_unknown_verb_is_exit_code_2(mfuser):
    assert mfuser("sgement").returncode == 2


def test_interrupt_ends_with_130(mfuser_process, random_model, tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((40, 60, 3), 127, np.uint8))
    fifo = tmp_path / "vocabulary.yaml"
    os.mkfifo(fifo)
    process = mfuser_process(
        "segment", tmp_path / "grey.png", "--out", tmp_path / "out", "--model", random_model, "--vocabulary", fifo
    )
    writer = wait_for_reader(fifo, process)  # the command is at work now, and waits for us

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_S)
    os.close(writer)

    assert process.returncode == 130
    assert "Traceback" not in errors


def wait_for_reader(fifo: Path, process: subprocess.Popen[str]) -> int:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end and process.poll() is None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.02)
    process.kill()
    return pytest.fail(f"the command never read its vocabulary: {process.communicate()[1]}")
