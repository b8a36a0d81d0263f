"""A tiny set, tower files with weights at random, and a recipe over both: what real steps of `small` need."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mfuser_ros.network.towers  # noqa: F401  # mends torchvision for timm
from mfuser_ros.training.config import TrainConfig, load_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of three pictures each: 19 labels in one, CamVid's in the other."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    sets = (("cityscapes256/train", 19, (64, 64)), ("cityscapes256/val", 19, (64, 64)), ("camvid/day", 11, (48, 64)))
    for name, ids, size in sets:
        for kind in ("photo", "label"):
            (root / name / kind).mkdir(parents=True)
        for number in range(3):
            label = cv2.resize(rng.integers(0, ids, (4, 4), np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
            picture = np.stack([label * 9, 255 - label * 9, rng.integers(0, 255, size, np.uint8)], 2)
            cv2.imwrite(str(root / name / "photo" / f"s{number}_1.jpg"), picture)
            cv2.imwrite(str(root / name / "label" / f"s{number}_1.png"), label)
            if name == "cityscapes256/val":  # the same as published sets, which the published recipes name
                city, shot = "cityscapes/{}/val/aachen", f"aachen_00000{number}_000019"
                _write(root / "gta5/images" / f"0000{number}.png", picture)
                _write(root / "gta5/labels" / f"0000{number}_labelTrainIds.png", label)
                _write(root / city.format("leftImg8bit") / f"{shot}_leftImg8bit.png", picture)
                _write(root / city.format("gtFine") / f"{shot}_gtFine_labelTrainIds.png", label)
    return root


def _write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


@pytest.fixture(scope="session")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as the pretrained ones, with weights at random."""
    import timm

    root = tmp_path_factory.mktemp("towers")
    files = load_recipe(ROOT / "config" / "train" / "small.yaml").towers
    torch.manual_seed(1)
    for name in (files.vfm, files.vlm):
        network = timm.create_model("mobilenetv2_100", pretrained=False)
        save_file({key: value for key, value in network.state_dict().items() if "num_batches" not in key}, root / name)
    save_file({"text": torch.nn.functional.normalize(torch.randn(19, 512), dim=1)}, root / files.text)
    return root


@pytest.fixture
def recipe() -> TrainConfig:
    """The recipe of `small` on crops of 64 x 96, two a step."""
    full = load_recipe(ROOT / "config" / "train" / "small.yaml")
    content = full.model_dump()
    content["sources"] = [{**source, "samples": 1, "nominal": (64, 96)} for source in content["sources"][:2]]
    content["crop"]["size"] = (64, 96)
    content["losses"]["points"] = 64
    content["optimizer"]["warm_up_steps"] = 2
    content["precision"] = "fp32"
    content["workers"] = 0
    content["log_steps"] = 2
    return TrainConfig.model_validate(content)


@pytest.fixture(autouse=True)
def _shipped_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the package find config/ of this checkout, whether or not it is installed."""
    prefix = tmp_path / "prefix" / "share"
    prefix.mkdir(parents=True)
    (prefix / "mfuser_ros").symlink_to(ROOT)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix.parent))
