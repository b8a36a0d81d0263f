"""A model with random weights that is quick, and bags of noise with labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mfuser_ros import vocabulary
from mfuser_ros.bags import BagWriter
from mfuser_ros.checkpoints import ModelCard, save_model
from mfuser_ros.commands.bag_evaluation import edge
from mfuser_ros.evaluation.bag.collect import collect
from mfuser_ros.evaluation.bag.fleet.task import Task, bag_folder, finished, perform
from mfuser_ros.evaluation.bag.run import load_segmenter
from mfuser_ros.evaluation.bag.settings import BagSettings
from mfuser_ros.network.config import SMALL
from mfuser_ros.network.model import MFuser

PERIOD_NS = 100_000_000


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    architecture = SMALL.model_copy(update={"input": SMALL.input.model_copy(update={"long_side": 64})})
    card = ModelCard(
        name="random", architecture=architecture, vocabulary=vocabulary.load().names, threshold=0.05, temperature=0.2,
        licence="CC0-1.0", provenance="random weights, seed 3",
    )  # fmt: skip
    save_model(MFuser(architecture), card, path)
    return path


@pytest.fixture
def settings(model) -> BagSettings:
    return BagSettings(model=str(model), device="cpu")


@pytest.fixture(scope="session")
def scene():
    """Picture i of a drive of blocks of colour, and its label in train ids."""

    def make(index: int, size: tuple[int, int] = (32, 48)) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(index)
        coarse = draw.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        ids = draw.choice(np.array([0, 1, 2, 8, 10, 13, 255], np.uint8), (4, 6))
        scale = np.ones((size[0] // 4, size[1] // 6), np.uint8)
        return np.kron(coarse, scale[..., None]), np.kron(ids, scale)

    return make


@pytest.fixture(scope="session")
def drive(scene):
    """Writes a bag of so many frames with labels in train ids."""

    def write(path: Path, frames: int = 6, *, storage: str = "mcap", labels: bool = True) -> Path:
        with BagWriter(path, storage=storage) as bag:
            for index in range(frames):
                picture, label = scene(index)
                stamp_ns = 10**18 + index * PERIOD_NS
                bag.image("/front/image_raw", picture, encoding="rgb8", stamp_ns=stamp_ns, frame_id="eye")
                if labels:
                    bag.mask("/front/label", label, stamp_ns=stamp_ns, frame_id="eye")
        return path

    return write


@pytest.fixture(scope="session")
def evaluated():
    """Evaluates bags into a folder in this process; gives the summary."""

    def run(bags: list[Path], out: Path, settings: BagSettings) -> dict[str, object]:
        segmenter = load_segmenter(settings)
        folders = []
        for bag in bags:
            done = finished(perform(Task(str(bag), settings, edge()), out, segmenter))
            assert not done.error
            folders.append(bag_folder(out, done.key))
        return collect(folders, out, source="test", settings=settings, segmenter=segmenter).summary

    return run
