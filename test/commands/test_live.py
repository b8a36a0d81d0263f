"""`mfuser evaluate BAG --live`: command, node and DDS for real, with random weights and small pictures."""

import json
import os
import signal
import threading

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

pytest.importorskip("rclpy", reason="needs the [ros] extra")

from mfuser_ros.bags import BagWriter

PICTURES = 10
INTERVAL_NS = 200_000_000
START_NS = 1_700_000_000_000_000_000
DEADLINE_S = 90.0  # of the whole machine under load; reached only in failure


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Puts back what the command sets for the middleware."""
    for name in ("ROS_DOMAIN_ID", "ROS_LOG_DIR", "ROS_AUTOMATIC_DISCOVERY_RANGE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        monkeypatch.setenv(name, os.environ[name])


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """Ten pictures of two cameras, five a second."""
    path = tmp_path_factory.mktemp("live") / "drive"
    rng = np.random.default_rng(0)
    with BagWriter(path) as writer:
        for index in range(PICTURES):
            for topic in ("/front/image_raw", "/rear/image_raw"):
                picture = rng.integers(0, 256, (96, 128, 3), np.uint8)
                stamp_ns = START_NS + index * INTERVAL_NS
                writer.image(topic, picture, encoding="rgb8", stamp_ns=stamp_ns, frame_id="camera")
    return path


def test_live_run_counts_every_picture_finds_a_peak_and_judges_limits(bag, random_model, mfuser, tmp_path, monkeypatch):
    monkeypatch.setattr("mfuser_ros.node.live.PROBE_S", 0.5)
    monkeypatch.setattr("mfuser_ros.node.live.LEAST_PICTURES", 3)
    monkeypatch.setattr("mfuser_ros.node.live_player.DRAIN_S", 1.0)
    monkeypatch.setattr("mfuser_ros.node.peak.INTERVAL", 5.0)
    out = tmp_path / "out"
    limits = ["age_p99_ms>0", "drop_share<=1", "live.cameras.front.drops<=10", "latency_ms.p95<=0"]

    done = mfuser(
        "evaluate", bag, "--peak", "--model", random_model, "--device", "cpu", "--out", out,
        *(part for limit in limits for part in ("--limit", limit)),
    )  # fmt: skip

    assert done.returncode == 1, done.stderr
    assert "mfuser: limit latency_ms.p95<=0 is broken: latency_ms.p95 is " in done.stderr
    assert done.stdout.splitlines()[-1] == str(out / "report.html")
    summary = json.loads((out / "summary.json").read_text())
    live = summary["live"]
    assert (summary["version"], summary["frames"], summary["model"]["name"]) == (1, 2 * PICTURES, "random")
    assert len(summary["model"]["sha256"]) == 64
    assert [limit["holds"] for limit in summary["limits"]] == [True, True, True, False]
    assert live["pictures"] == live["masks"] + live["drops"] == 2 * PICTURES
    assert live["masks"] > 0
    assert 0 < live["age_p50_ms"] <= live["age_p95_ms"] <= live["age_p99_ms"]
    assert summary["latency_ms"]["p50"] == live["age_p50_ms"]
    assert live["wanted_hz"] == 5.0
    assert live["memory_mb"] > 100
    assert [camera["name"] for camera in live["cameras"]] == ["front", "rear"]
    assert sum(camera["masks"] for camera in live["cameras"]) == live["masks"]
    assert live["warm_up"]["masks"] == 6
    peak = live["peak"]
    assert len(peak["probes"]) >= 4  # 10 Hz, one of 3.2 and 32 Hz, one of the scan, one to confirm
    if peak["rate_hz"] is not None:  # a machine under load may keep up with nothing
        assert 1 <= peak["rate_hz"] <= 100
        assert peak["drop_share"] < 0.05
    assert [entry["name"] for entry in live["fixed"]] == ["10hz", "30hz", "60hz"]
    assert [entry["pictures"] for entry in live["fixed"]] == [2 * 5, 2 * 15, 2 * 30]

    table = pq.read_table(out / "frames.parquet")
    assert table.num_rows == 2 * PICTURES
    assert table["age_ms"].null_count == live["drops"]
    page = (out / "report.html").read_text(encoding="utf-8")
    for chart in ("chart-ages-front", "chart-ages-rear", "chart-rates"):
        assert f'id="{chart}"' in page
    assert (out / "log" / "node.log").is_file()


def test_limits_that_hold_give_exit_code_0(bag, random_model, mfuser):
    done = mfuser(
        "evaluate", bag, "--live", "--topic", "/rear/image_raw", "--stop", "0.9", "--model", random_model,
        "--device", "cpu", "--quiet", "--limit", "pictures>=5", "--limit", "masks>0",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_node_without_weights_is_one_line_and_exit_code_2(bag, mfuser, tmp_path):
    missing = tmp_path / "none.safetensors"
    done = mfuser("evaluate", bag, "--live", "--model", missing, "--device", "cpu", "--quiet")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"mfuser: the node is not ready: configure failed: {missing}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--live"], "nothing to evaluate"),
        (["BAG", "BAG", "--live"], "--live and 2 inputs: one bag is played at a time"),
        (["camvid/dusk", "--live"], "--live and camvid/dusk: is no bag"),
        (["BAG", "--live", "--topic", "/left/image"], "no picture topic /left/image"),
        (["BAG", "--live", "--start", "100"], "no pictures on /front/image_raw in the time that is asked for"),
        (["BAG", "--live", "--limit", "age"], "limit 'age': write METRIC>=VALUE"),
        (["BAG", "--live", "--limit", "cameras.left.drops<1"], "limit on cameras.left.drops: no such metric"),
        (["BAG", "--live", "--limit", "fixed.20hz.drops<1"], "limit on fixed.20hz.drops: no such metric"),
        (["BAG", "--live", "--limit", "live.age_p98_ms<=200"], "limit on age_p98_ms: no such metric: choose from"),
    ],
)
def test_what_cannot_be_played_is_told_before_anything_starts(bag, mfuser, arguments, message):
    done = mfuser("evaluate", *(str(bag) if argument == "BAG" else argument for argument in arguments))
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(("number", "stage"), [(signal.SIGTERM, "node"), (signal.SIGINT, "pictures")])
def test_interrupted_command_takes_the_node_with_it(bag, random_model, mfuser_process, number, stage):
    command = mfuser_process("evaluate", bag, "--peak", "--model", random_model, "--device", "cpu")
    watchdog = threading.Timer(DEADLINE_S, command.kill)
    watchdog.start()
    told = iter(command.stderr.readline, "")
    assert any(line.startswith(f"{stage}: ") for line in told)
    nodes = [child for child in psutil.Process(command.pid).children() if "mfuser_ros.node" in child.cmdline()]
    command.send_signal(number)
    command.communicate(timeout=DEADLINE_S)
    watchdog.cancel()
    assert command.returncode != 0
    gone, left = psutil.wait_procs(nodes, timeout=5)
    assert (len(gone), left) == (1, [])
