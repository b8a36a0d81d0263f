"""`mfuser evaluate` as a person runs it, on a tiny set and a network with weights at random."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import typer
from typer.testing import CliRunner

from mfuser_ros.checkpoints import load_model
from mfuser_ros.checkpoints.store import ModelCard, save_model
from mfuser_ros.commands.evaluate import evaluate
from mfuser_ros.errors import MFuserError
from mfuser_ros.network.config import SMALL
from mfuser_ros.network.model import MFuser
from mfuser_ros.vocabulary import load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    names = load(ROOT / "config" / "vocabulary.yaml").names
    card = ModelCard(
        name="random", architecture=SMALL, vocabulary=names, threshold=0, temperature=1, licence="none",
        provenance="random",
    )  # fmt: skip
    save_model(MFuser(SMALL), card, path)
    return path


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prefix = tmp_path / "prefix" / "share"
    prefix.mkdir(parents=True)
    (prefix / "mfuser_ros").symlink_to(ROOT)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix.parent))
    root = tmp_path / "camvid" / "dusk"
    rng = np.random.default_rng(0)
    for kind in ("photo", "label"):
        (root / kind).mkdir(parents=True)
    for stem in ("x_1", "x_2"):
        cv2.imwrite(str(root / "photo" / f"{stem}.jpg"), rng.integers(0, 255, (36, 48, 3), np.uint8))
        cv2.imwrite(str(root / "label" / f"{stem}.png"), rng.integers(0, 11, (36, 48), np.uint8))
    return tmp_path


@pytest.fixture
def app() -> typer.Typer:
    application = typer.Typer()
    application.command()(evaluate)
    return application


def test_scores_are_printed_and_written(app: typer.Typer, data: Path, model: Path) -> None:
    arguments = ["camvid/dusk", "--data", data, "--model", model, "--device", "cpu", "--size", "96x64"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--out", str(data / "out")])

    assert result.exit_code == 0, result.output
    assert "signsymbol" in result.output
    assert "mean IoU" in result.output
    summary = json.loads((data / "out" / "summary.json").read_text())
    assert summary["input"] == "camvid/dusk"
    assert summary["frames"] == 2
    assert summary["model"]["sha256"] == load_model(model)[1].sha256
    assert summary["settings"]["size"] == [64, 96]
    assert summary["settings"]["protocol"] == "single"
    assert np.sum(summary["confusion"]) == 2 * 36 * 48
    assert 0 < summary["boundary_iou"] < 1
    assert summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert pq.read_table(data / "out" / "frames.parquet")["stem"].to_pylist() == ["x_1", "x_2"]
    assert "x_2: mean IoU" in (data / "out" / "report.html").read_text(encoding="utf-8")


def test_folder_of_a_set_is_enough_and_every_nth_picture_a_quick_look(
    app: typer.Typer, data: Path, model: Path
) -> None:
    arguments = [data / "camvid" / "dusk", "--model", model, "--device", "cpu", "--size", "96x64", "--every", "2"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--out", str(data / "out")])
    assert result.exit_code == 0, result.output
    summary = json.loads((data / "out" / "summary.json").read_text())
    assert (summary["input"], summary["frames"], summary["settings"]["every"]) == ("camvid/dusk", 1, 2)


def test_published_protocol_slides_windows(app: typer.Typer, data: Path, model: Path) -> None:
    text = (ROOT / "config" / "datasets" / "camvid.yaml").read_text(encoding="utf-8")
    (data / "mine.yaml").write_text(text + "published_within: [700, 525]\n", encoding="utf-8")
    arguments = [f"{data}/mine.yaml/dusk", "--data", data, "--model", model, "--device", "cpu", "--every", "2"]
    result = CliRunner().invoke(
        app, [*map(str, arguments), "--protocol", "published", "--out", str(data / "out"), "--quiet"]
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    summary = json.loads((data / "out" / "summary.json").read_text())
    settings = {key: summary["settings"][key] for key in ("protocol", "within", "window", "stride")}
    assert settings == {"protocol": "published", "within": [700, 525], "window": 512, "stride": 341}
    assert np.sum(summary["confusion"]) == 36 * 48
    assert "windows of 512 px every 341 px" in (data / "out" / "report.html").read_text(encoding="utf-8")


def test_calibration_is_written_into_the_model(app: typer.Typer, data: Path, model: Path) -> None:
    arguments = ["camvid/dusk", "--data", data, "--model", model, "--device", "cpu", "--size", "96x64", "--calibrate"]
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "temperature" in result.output
    description = load_model(model)[1]
    assert description.temperature != 1
    assert description.threshold > 0


def test_check_decodes_all_and_names_the_first_bad_file(app: typer.Typer, data: Path) -> None:
    cv2.imwrite(str(data / "camvid" / "dusk" / "label" / "x_1.png"), np.full((36, 48), 3, np.uint8))
    cv2.imwrite(str(data / "camvid" / "dusk" / "label" / "x_2.png"), np.full((36, 48), 255, np.uint8))
    result = CliRunner().invoke(app, ["camvid/dusk", "--data", str(data), "--check"])
    assert result.exit_code == 0, result.output
    assert "2 pairs, all readable" in result.output
    assert re.search(r"road\s*│\s*100\.000\s*│\s*1 ", result.output)
    assert re.search(r"not labelled \(of all pixels\)\s*│\s*50\.000", result.output)
    (data / "camvid" / "dusk" / "photo" / "x_2.jpg").write_bytes(b"")
    result = CliRunner().invoke(app, ["camvid/dusk", "--data", str(data), "--check"])
    assert "x_2.jpg: does not decode" in str(result.exception)


def test_without_data_a_folder_is_asked_for(app: typer.Typer, data: Path) -> None:
    result = CliRunner().invoke(app, ["camvid/dusk"])
    assert str(result.exception).startswith("camvid/dusk: no such folder: give --data")
    result = CliRunner().invoke(app, [str(data)])
    assert "no layout of a known set" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["camvid/night"], "no split 'night'"),
        (["camvid"], "which split"),
        (["camvid/day"], "neither day.tar nor a folder"),
        (["nowhere/val"], "cannot be read"),
        (["camvid/dusk", "--size", "big"], "WIDTHxHEIGHT"),
        (["camvid/dusk", "--size", "96x64", "--protocol", "published"], "belongs to a single pass"),
        (["camvid/dusk", "--model", "none.safetensors"], "none.safetensors"),
        (["labelme_facade/street"], "street"),
    ],
)
def test_bad_input_is_named_in_one_line(app: typer.Typer, data: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, [*arguments, "--data", str(data), "--device", "cpu"])
    assert isinstance(result.exception, MFuserError)  # which the command turns into exit code 2
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
