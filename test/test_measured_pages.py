"""docs/calibration.py and docs/steady.py: what they measure on tiny sets, and that the pages say what the JSON says."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
import yaml

import mfuser_ros
from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import load_model
from mfuser_ros.checkpoints.store import ModelCard, save_model
from mfuser_ros.datasets.config import load_config
from mfuser_ros.datasets.video import VideoWriter
from mfuser_ros.errors import DatasetError
from mfuser_ros.inference import Segmentation, Steady
from mfuser_ros.network.config import SMALL
from mfuser_ros.network.model import MFuser

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(not (DOCS / "steady.md").exists(), reason="needs the source checkout")


@pytest.fixture(scope="module")
def scripts() -> dict[str, ModuleType]:
    """The scripts, imported as Python does when they are run."""
    sys.path.insert(0, str(DOCS))
    try:
        return {name: importlib.import_module(name) for name in ("tables", "calibration", "steady")}
    finally:
        sys.path.remove(str(DOCS))
        for name in ("tables", "calibration", "steady"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    architecture = SMALL.model_copy(update={"input": SMALL.input.model_copy(update={"long_side": 96})})
    card = ModelCard(
        name="random", architecture=architecture, vocabulary=vocabulary.load().names, threshold=0.5, temperature=1,
        licence="none", provenance="random weights, seed 1",
    )  # fmt: skip
    save_model(MFuser(architecture), card, path)
    return path


@pytest.fixture
def pages(tmp_path) -> Path:
    folder = tmp_path / "docs"
    (folder / "benchmarks").mkdir(parents=True)
    for name in ("calibration.md", "steady.md"):
        shutil.copy(DOCS / name, folder / name)
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    """One or two pictures of every set that is asked for."""
    rng = np.random.default_rng(0)
    stems = {
        "cityscapes256/val": ["a"], "camvid/dusk": ["0001TP_006690"], "idd_lite/val": ["1_2"],
        "camvid/day": ["0016E5_00390", "0006R0_f00930", "0006R0_f00932", "0006R0_f00934", "0006R0_f00990"],
    }  # fmt: skip
    for split, names in stems.items():
        labels = len(load_config(split.split("/")[0]).labels)
        for kind in ("photo", "label"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
        for stem in names:
            picture = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(tmp_path / "data" / split / "photo" / f"{stem}.jpg"), picture)
            label = rng.integers(0, labels, (48, 64), np.uint8)
            cv2.imwrite(str(tmp_path / "data" / split / "label" / f"{stem}.png"), label)
    return tmp_path / "data"


def _recipe(tmp_path: Path, leave_out: list[str]) -> Path:
    recipe = yaml.safe_load((ROOT / "config/train/small.yaml").read_text())
    for source in recipe["sources"]:
        source["leave_out"] = leave_out if source["dataset"] == "camvid" else []
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.mark.parametrize("script", ["calibration", "steady"])
def test_page_says_what_was_measured(scripts, script):
    page = (DOCS / f"{script}.md").read_text(encoding="utf-8")
    content = json.loads((DOCS / "benchmarks" / f"{script}_small.json").read_text(encoding="utf-8"))

    parts = scripts[script].tables(content)

    assert scripts["tables"].filled(page, parts) == page, f"run `python docs/{script}.py`"


def test_one_command_fits_and_measures_every_set(scripts, model, pages, data, tmp_path, monkeypatch, capsys):
    calibration, recipe = scripts["calibration"], _recipe(tmp_path, ["0006R0"])
    sized = load_config("camvid").model_copy(update={"size": (64, 96)})
    monkeypatch.setattr(
        calibration, "load_config", lambda name: load_config(name).model_copy(update={"size": sized.size})
    )
    own = tmp_path / "own.safetensors"
    for suffix in (".safetensors", ".yaml"):
        shutil.copy(model.with_suffix(suffix), own.with_suffix(suffix))
    monkeypatch.setattr(
        sys, "argv",
        ["calibration.py", "--data", str(data), "--model", str(own), "--recipe", str(recipe), "--device", "cpu",
         "--out", str(pages)],
    )  # fmt: skip

    calibration.main()

    content = json.loads((pages / "benchmarks" / "calibration_random.json").read_text())
    assert [(entry["set"], entry["role"], entry["pictures"]) for entry in content["sets"]] == [
        ("cityscapes256/val", "source", 1), ("camvid/day/0006R0", "source", 4), ("camvid/dusk", "target", 1),
        ("idd_lite/val", "target", 1),
    ]  # fmt: skip
    description = load_model(own)[1]
    assert (description.temperature, description.threshold) == (content["temperature"], content["threshold"])
    assert description.temperature != 1
    page = (pages / "calibration.md").read_text()
    assert "camvid/day/0006R0" in page
    for curve in ("reliability", "road"):
        assert cv2.imread(str(pages / "pictures" / f"calibration_random_{curve}.png")).shape[0] > 300
        assert f"calibration_random_{curve}.png" in page


def test_sequence_that_is_not_there_is_named(scripts, data):
    with pytest.raises(DatasetError, match="camvid/day/Seq99: no picture"):
        scripts["calibration"].open_part("camvid/day/Seq99", data, 1)


def test_recipe_without_a_held_back_sequence_is_said_so(scripts, tmp_path):
    names = scripts["calibration"].source_names(_recipe(tmp_path, []))
    assert names == ["cityscapes256/val"]


def test_drives_and_the_labelled_stretch_are_measured(scripts, model, pages, data, tmp_path, monkeypatch):
    steady = scripts["steady"]
    monkeypatch.setattr(steady, "DRIVES", {"drive.mp4": 1})
    rng = np.random.default_rng(0)
    with VideoWriter(tmp_path / "drive.mp4", rate_hz=10) as writer:
        picture = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (96, 64), interpolation=cv2.INTER_CUBIC)
        for _ in range(4):
            writer.write(picture)
    arguments = ["--replay", tmp_path, "--data", data, "--model", model, "--device", "cpu", "--out", pages]
    monkeypatch.setattr(sys, "argv", ["steady.py", *map(str, arguments)])

    steady.main()

    drive, stretch = json.loads((pages / "benchmarks" / "steady_random.json").read_text())["drives"]
    assert (drive["input"], drive["frames"], drive["size"]) == ("drive, from frame 1", 3, "96x64")
    assert drive["single"]["pairs"] == drive["steady"]["pairs"] == 2
    assert stretch["frames"] == 3
    assert 0 <= stretch["single"]["miou"] <= 1


def test_flicker_is_measured_without_and_with_the_filter(scripts, model):
    """Building and vegetation take turns on a still picture; the labels say building."""
    segmenter = mfuser_ros.load(model, device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 2)
    plain = np.zeros((64, 96), np.uint8)
    config = load_config("camvid")
    singles = [
        scripts["steady"].Single(
            Segmentation(picture, plain + label, plain + 200, plain + label, segmenter.vocabulary),
            0.1 * index,
            plain + 1,
        )
        for index, label in enumerate([2, 8, 2, 8])
    ]

    content = scripts["steady"].measure("still", singles, Steady(segmenter), config)

    assert content["single"]["flips_per_s"] == pytest.approx(10)
    assert content["steady"]["flips_per_s"] == content["labels"]["flips_per_s"] == 0
    assert content["steady"]["miou"] == 1
    assert content["single"]["miou"] == pytest.approx((0.5 + 0) / 2)  # building half the time, tree never rightly


def test_longest_stretch_of_neighbours_is_found(scripts):
    stems = ["A_0001", "A_0003", "B_0005", "B_0007", "B_0009", "B_0039", "B_0041"]
    assert scripts["steady"].longest_stretch(stems) == [2, 3, 4]
