"""The measurement of the node around the network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def test_ages_of_two_cameras_before_a_slow_network_are_a_row_of_the_bench(ros):
    task = {"width": 64, "height": 48, "frames": 5, "rate_hz": 20, "cameras": 2, "network_ms": 60}
    command = [sys.executable, "-m", "mfuser_ros.node.overhead", json.dumps(task)]

    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=300)

    assert finished.returncode == 0, finished.stderr
    (row,) = json.loads(finished.stdout.splitlines()[-1])
    assert (row["what"], row["size"], row["cameras"], row["sent"]) == ("node_age", "64x48", 2, 10)
    assert 0 < row["frames"] <= 10
    assert 60 <= row["ms"]["min"] <= row["ms"]["p50"]
    assert row["latency_ms"]["min"] >= 60
    assert row["cpu_ms"] > 0


def test_real_network_behind_the_node_is_a_row_with_what_is_spent_outside_of_it(ros):
    task = {"width": 64, "height": 48, "frames": 4, "rate_hz": 2, "model": "small", "device": "cpu"}
    command = [sys.executable, "-m", "mfuser_ros.node.overhead", json.dumps(task)]

    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=300)

    assert finished.returncode == 0, finished.stderr
    (row,) = json.loads(finished.stdout.splitlines()[-1])
    assert (row["what"], row["model"], row["precision"], row["backend"]) == ("node", "small", "float32", "eager")
    assert row["dropped"] == row["sent"] - row["frames"] >= 0
    assert row["inside_ms"]["p50"] > 5 * row["outside_ms"]["min"] > 0
    assert row["latency_ms"]["min"] > row["inside_ms"]["min"]
    assert row["cpu_share"] > 0


@pytest.mark.parametrize("task", ['{"width": 0, "height": 48, "frames": 5}', "no task"])
def test_bad_task_is_one_line(ros, capsys, task):
    from mfuser_ros.node.overhead import main

    assert main([task]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
