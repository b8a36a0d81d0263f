"""Timing of a network's parts; on a CPU the same code runs without graphs, on a tiny network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mfuser_ros.checkpoints import rebuild
from mfuser_ros.checkpoints.golden import read_golden
from mfuser_ros.evaluation import gpu_speed
from mfuser_ros.evaluation.gpu_speed import Subject

GOLDEN = Path(__file__).parents[1] / "golden" / "model_eva_tiny"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PARTS = ["copy in", "encode and fuse", "encode", "fuse", "decode", "copy out"]


@pytest.fixture(scope="module")
def rows():
    what = Subject("tiny", "random", lambda: rebuild.mfuser(read_golden(GOLDEN)))
    return gpu_speed.window_rows(what, DEVICE, "float32", [1, 2], 3)


def test_rows_are_the_peak_the_eager_window_each_batch_and_the_stages(rows):
    matmul, eager, *fast = rows

    assert matmul["what"] == "matmul"
    assert (eager["what"], eager["backend"], eager["precision"], eager["batch"]) == ("window", "eager", "float32", 1)
    assert [(row["what"], row["batch"]) for row in fast[:2]] == [("window", 1), ("window", 2)]
    assert [row["stage"] for row in fast[2:]] == PARTS
    assert all(row["weights"] == "random" and row["model"] == "tiny" for row in rows[1:])
    assert all(0 < row["ms"]["min"] <= row["ms"]["p50"] <= row["ms"]["p99"] for row in rows)


def test_rates_ratios_and_shares_follow_from_the_times(rows):
    matmul, eager, one, two = rows[:4]

    assert one["tflop"] == eager["tflop"] > 0
    assert two["tflop"] == pytest.approx(2 * one["tflop"], rel=1e-3, abs=1e-6)
    for row in (one, two):
        per_s = 1e3 * row["batch"] / row["ms"]["p50"]
        assert row["windows_per_s"] == pytest.approx(per_s, abs=0.01)
        assert row["times_eager"] == pytest.approx(per_s * eager["ms"]["p50"] / 1e3, abs=0.01)
        share = row["tflop"] / row["batch"] * per_s / matmul["tflop_per_s"]
        assert row["share_of_matmul_peak"] == pytest.approx(share, rel=0.1, abs=1e-3)


def test_engine_agrees_with_the_eager_window(rows):
    assert rows[2]["same_labels"] > 0.999
    assert rows[2]["largest_difference"] < 1e-3


def test_scan_rows_name_their_backend():
    rows = gpu_speed.scan_rows(DEVICE, 2, (50, 8, 4))

    ours = "triton" if DEVICE.type == "cuda" else "blocked"
    assert [(row["batch"], row["backend"]) for row in rows if row["backend"] != "mamba_ssm"] == [(1, ours), (8, ours)]
    assert all(row["size"] == "50x8x4" for row in rows)
    assert all(row["relative_difference"] < 1e-5 for row in rows if row["backend"] == "mamba_ssm")


def test_presets_without_weights_are_known_by_name_and_say_random():
    assert gpu_speed.subject("eva02-l").weights == "random"
    assert gpu_speed.subject("small").weights == "trained"
    assert gpu_speed.subject("models/of_mine.safetensors").weights == "trained"


def test_side_is_that_of_a_window_or_of_720p_in_small():
    what = Subject("tiny", "random", lambda: rebuild.mfuser(read_golden(GOLDEN)))

    assert what.side() == (what.make().architecture.input.crop,) * 2
