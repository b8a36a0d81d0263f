"""The measurement of the node around the network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def test_times_of_a_small_picture_are_a_row_of_the_bench(ros):
    command = [
        sys.executable,
        "-m",
        "mfuser_ros.node.overhead",
        '{"width": 64, "height": 48, "frames": 5, "rate_hz": 20}',
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=300)

    assert finished.returncode == 0, finished.stderr
    (row,) = json.loads(finished.stdout.splitlines()[-1])
    assert (row["what"], row["size"], row["sent"]) == ("node_overhead", "64x48", 5)
    assert 0 < row["frames"] <= 5
    assert 0 < row["ms"]["min"] <= row["ms"]["p50"] <= row["latency_ms"]["p99"]
    assert row["cpu_ms"] > 0


@pytest.mark.parametrize("task", ['{"width": 0, "height": 48, "frames": 5}', "no task"])
def test_bad_task_is_one_line(ros, capsys, task):
    from mfuser_ros.node.overhead import main

    assert main([task]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
