"""Real steps of the real `small` on tiny crops of a tiny set: state, resume, freezing, skipped steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from mfuser_ros.checkpoints import load_model
from mfuser_ros.errors import CheckpointError, ConfigurationError, DatasetError
from mfuser_ros.network.config import changed
from mfuser_ros.network.model import MFuser
from mfuser_ros.training.config import TrainConfig, load_recipe
from mfuser_ros.training.geometry import Geometry
from mfuser_ros.training.loop import Limits, train
from mfuser_ros.training.objective import objective
from mfuser_ros.training.sources import draw_batch, frequency_weights, load_source
from mfuser_ros.training.start import initial_model
from mfuser_ros.training.step import Step
from mfuser_ros.training.targets import Targets

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
REIN = {
    "towers": "vfm",
    "fusion": {"kind": "rein"},
    "enhancer": {"kind": "none"},
    "text": {"kind": "linked"},
    "head": {"text_attention": False},
}


def test_resumed_training_continues_as_if_nothing_had_happened(
    recipe: TrainConfig, data: Path, towers: Path, tmp_path: Path
) -> None:
    rows: list[dict[str, float]] = []

    def run(out: str, steps: int, resume: Path | None = None) -> MFuser:
        return train(
            recipe, data=data, towers=towers, out=tmp_path / out, device=CPU, limits=Limits(steps=4),
            resume=resume, report=lambda row: rows.append(dict(row)),
            validate=(lambda model: {"checked": 1.0}) if steps == 4 else None,
        )  # fmt: skip

    whole = run("whole", 4)
    first = [row for row in rows if "total" in row]
    assert [row["step"] for row in first] == [2, 4]
    assert rows[-1]["checked"] == 1.0

    rows.clear()
    stopped = train(
        recipe, data=data, towers=towers, out=tmp_path / "parts", device=CPU,
        limits=Limits(steps=4, session_minutes=1e-9), report=None,
    )  # fmt: skip
    assert stopped is not None
    rows.clear()
    resumed = run("parts", 0, tmp_path / "parts" / "state.pt")

    second = [row for row in rows if "total" in row]
    assert [row["step"] for row in second] == [2, 4]
    for before, after in zip(first, second, strict=True):
        assert before["total"] == pytest.approx(after["total"], rel=1e-6)
    for (name, a), b in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [2, 4, 4]
    assert not list((tmp_path / "whole").glob("*.part"))
    loaded, card = load_model(tmp_path / "whole" / "small.safetensors")
    assert card.vocabulary[0] == "road"
    assert "4 steps of 2 crops" in card.provenance
    assert all(torch.allclose(a, b, atol=2e-3) for a, b in zip(loaded.parameters(), whole.parameters(), strict=True))

    changed = recipe.model_copy(update={"seed": 7})
    with pytest.raises(CheckpointError, match="another recipe"):
        train(changed, data=data, towers=towers, out=tmp_path / "x", device=CPU, limits=Limits(steps=4),
              resume=tmp_path / "parts" / "state.pt")  # fmt: skip


def test_step_moves_head_and_towers_but_not_their_biases(recipe: TrainConfig, data: Path, towers: Path) -> None:
    model = initial_model(recipe, towers)
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    sources = [load_source(source, data, CPU, frequency_power=-0.25) for source in recipe.sources]
    step = Step(model, sources, recipe, CPU)
    step.set_rate(1.0)
    step()

    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    tower_vectors = {name for name, value in before.items() if name.startswith(("vfm.", "vlm.")) and value.ndim <= 1}
    assert tower_vectors
    assert not moved & tower_vectors
    assert "vfm.net.blocks.3.0.conv_dw.weight" in moved
    assert "mask_decoder.class_embed.weight" in moved
    assert "text.embeddings" not in moved
    largest = (after["vfm.net.conv_stem.weight"] - before["vfm.net.conv_stem.weight"]).abs().max()
    assert largest < 1.01e-4  # the first step of Adam moves by the rate
    row = step.read()
    assert row["skipped"] == 0
    assert row["total"] > 0
    assert step.read()["total"] == 0  # reading starts anew


def test_step_without_a_finite_gradient_changes_nothing(recipe: TrainConfig, data: Path, towers: Path) -> None:
    model = initial_model(recipe, towers)
    sources = [load_source(recipe.sources[0], data, CPU, frequency_power=-0.25)]
    broken = replace(sources[0], weight=torch.full_like(sources[0].weight, float("inf")))
    step = Step(model, [broken], recipe, CPU)
    step.set_rate(1.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step()
    assert step.read()["skipped"] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_tower_rate_of_zero_freezes_the_towers(recipe: TrainConfig, data: Path, towers: Path) -> None:
    frozen = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"tower_rate": 0.0})})
    model = initial_model(frozen, towers)
    sources = [load_source(frozen.sources[0], data, CPU, frequency_power=-0.25)]
    Step(model, sources, frozen, CPU)
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "vfm" not in trained
    assert "vlm" not in trained
    assert "mask_decoder" in trained


def test_new_schedule_begins_from_given_weights(recipe: TrainConfig, data: Path, towers: Path, tmp_path: Path) -> None:
    source = initial_model(recipe.model_copy(update={"seed": 5}), towers)
    save_file(dict(source.state_dict()), tmp_path / "start.safetensors")
    over = Limits(steps=1, minutes=1e-12)  # the schedule is over before its first step
    result = train(recipe, data=data, towers=towers, out=tmp_path / "out", device=CPU, limits=over,
                   start=tmp_path / "start.safetensors")  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(result.parameters(), source.parameters(), strict=True))


def test_missing_tower_and_data_are_named(recipe: TrainConfig, data: Path, towers: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="mobilenetv2_ade20k"):
        initial_model(recipe, tmp_path)
    wrong = tmp_path / "wrong"
    shutil.copytree(towers, wrong)
    save_file({"text": torch.zeros(18, 512)}, wrong / recipe.towers.text)
    with pytest.raises(CheckpointError, match=r"\(18, 512\), not of shape \(19, 512\)"):
        initial_model(recipe, wrong)
    with pytest.raises(DatasetError, match="camvid"):
        load_source(recipe.sources[1], tmp_path, CPU, frequency_power=-0.25)
    everything = recipe.sources[1].model_copy(update={"leave_out": ("s0", "s1", "s2")})
    with pytest.raises(ConfigurationError, match="no picture"):
        load_source(everything, data, CPU, frequency_power=-0.25)


def test_sequences_that_are_left_out_are_not_loaded(recipe: TrainConfig, data: Path) -> None:
    config = recipe.sources[1].model_copy(update={"leave_out": ("s1",)})
    assert len(load_source(config, data, CPU, frequency_power=-0.25).picture) == 2


def test_batch_carries_each_samples_own_label_table(recipe: TrainConfig, data: Path) -> None:
    sources = [load_source(source, data, CPU, frequency_power=-0.25) for source in recipe.sources]
    picture, targets = draw_batch(sources, Geometry(crop=(64, 96)))
    assert picture.shape == (2, 3, 64, 96)
    assert targets.label.shape == (2, 64, 96)
    assert torch.equal(targets.membership[0], torch.eye(19, dtype=torch.bool))
    assert targets.membership[1, 8].nonzero()[:, 0].tolist() == [13, 14, 15, 16]  # CamVid's car


def test_rare_labels_are_drawn_more_often(recipe: TrainConfig, data: Path) -> None:
    plain = load_source(recipe.sources[0].model_copy(update={"rare": {}}), data, CPU, frequency_power=0)
    shown = [int((label == 4).any()) for label in plain.label]
    rare = load_source(recipe.sources[0].model_copy(update={"rare": {4: 3.0}}), data, CPU, frequency_power=0)
    factor = np.array([3.0 if show else 1.0 for show in shown])
    np.testing.assert_allclose(rare.chance.numpy(), np.cumsum(factor / factor.sum()), rtol=1e-6)
    np.testing.assert_allclose(plain.chance.numpy(), [1 / 3, 2 / 3, 1], rtol=1e-6)


def test_frequency_weights_by_hand() -> None:
    weights = frequency_weights(np.array([8100, 100, 0]), -0.25)
    raw = np.array([(8100 / 8200) ** -0.25, (100 / 8200) ** -0.25, 0])
    expected = raw / (raw[0] * 8100 / 8200 + raw[1] * 100 / 8200)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


@pytest.mark.parametrize("changes", [{}, REIN], ids=["mfuser", "rein"])
def test_network_and_objective_read_no_value_back(changes: Mapping[str, Any]) -> None:
    # a CUDA graph cannot hold a step that asks for a value; fake tensors have none to give
    losses = load_recipe(ROOT / "config" / "train" / "small.yaml").losses
    model = MFuser(changed("small", changes))
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 96))  # real position tables enter the cache, as the ordinary first steps do
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    weights = {name: mode.from_tensor(value) for name, value in [*model.named_parameters(), *model.named_buffers()]}
    with mode:
        targets = Targets(
            torch.zeros(2, 64, 96, dtype=torch.long), torch.ones(2, 19, 19, dtype=torch.bool), torch.ones(2, 19),
            torch.ones(2, dtype=torch.bool),
        )  # fmt: skip
        output = torch.func.functional_call(model, weights, torch.zeros(2, 3, 64, 96))
        terms = objective(output, targets, losses, matched=bool(changes))
        terms.total.backward()
    assert terms.total.shape == ()
    assert weights["vfm.net.conv_stem.weight"].grad is not None
