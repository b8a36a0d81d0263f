"""Every golden of the losses and of a whole training step: losses, chosen points, gradients."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mfuser_ros.checkpoints import rebuild
from mfuser_ros.checkpoints.golden import Row, compare, read_golden
from mfuser_ros.checkpoints.parity import parity
from mfuser_ros.checkpoints.replay import picture_of
from mfuser_ros.inference.windows import slide, starts
from mfuser_ros.training import objective as objectives
from mfuser_ros.training.config import LossConfig
from mfuser_ros.training.replay import REPLAYS, published_targets
from mfuser_ros.training.targets import class_targets

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = (
    "unit_tqdm_loss",
    "unit_tqdm_loss_empty_one",
    "unit_tqdm_loss_empty_all",
    "train_eva_tiny",
    "train_clip_tiny",
    "train_siglip_tiny",
)


def _replayed(path: Path) -> list[Row]:
    return parity(path, slide=slide, starts=starts, training=REPLAYS)


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_are_the_published_ones(name: str) -> None:
    rows = _replayed(GOLDEN / name)

    assert [row for row in rows if not row.ok] == []
    recorded = json.loads((GOLDEN / f"{name}.json").read_text())["tensors"]
    inputs = {key for key in recorded if key.startswith("in.")}
    counts = {"mid.tape_used", *(f"mid.gt_labels.{picture}" for picture in range(2))}  # of the recording, not results
    assert {row.key for row in rows} == set(recorded) - inputs - counts


@pytest.mark.parametrize("variant", ["eva", "clip", "siglip"])
def test_gradients_of_all_trained_weights_are_compared(variant: str) -> None:
    golden = read_golden(GOLDEN / f"train_{variant}_tiny")
    assert len(golden.gradient_norms) == golden["mid.grad_norms"].numel() > 250
    (row,) = [row for row in _replayed(GOLDEN / golden.name) if row.key == "mid.grad_norms"]
    assert row.difference < 1e-3 * float(golden["mid.grad_norms"].max())


@pytest.mark.parametrize(
    ("key", "amount"), [("out.d1.loss_mask", 2e-3), ("grad_in.mask.3", 1e-3), ("in.tape", 0.3), ("in.cls.2", 0.1)]
)
def test_changed_number_is_found(key: str, amount: float) -> None:
    golden = read_golden(GOLDEN / "unit_tqdm_loss")
    changed = golden[key].clone()
    changed.view(-1)[-1 if key == "in.tape" else 0] += amount
    spoilt = replace(golden, tensors={**golden.tensors, key: changed})
    assert not all(row.ok for row in compare(spoilt, REPLAYS["unit_tqdm_loss"](spoilt)))


@pytest.mark.parametrize("variant", ["eva", "clip", "siglip"])
def test_objective_of_a_recipe_can_be_the_published_total(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = read_golden(GOLDEN / f"train_{variant}_tiny")
    with torch.random.fork_rng():
        network = rebuild.mfuser(golden).train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0
    targets = published_targets(golden["in.gt_semantic_seg"][:, 0], 19)
    output = network(picture_of(golden["in.img"]))
    L = len(output.predictions)
    points = torch.rand(L, *class_targets(targets).positive.shape, 32, 2)
    for k in range(L):
        points[k][class_targets(targets).positive] = golden[f"mid.points.{k}"]
    monkeypatch.setattr(objectives, "draw_points", lambda *_, **__: points.flatten(0, 2))
    published = LossConfig(
        marginal=0, classes=2, mask=5, dice=5, alignment=1, auxiliary=1, total="sum", alignment_stride=1, points=32,
        frequency_power=0, unlabelled="background",
    )  # fmt: skip

    terms = objectives.objective(output, targets, published)

    torch.testing.assert_close(terms.total, golden["out.total"].squeeze(), atol=2e-3, rtol=2e-4)
