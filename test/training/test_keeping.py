"""What a training keeps: best and last, logs, and one clear line where it cannot go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from mfuser_ros.checkpoints import load_model
from mfuser_ros.errors import CheckpointError, ConfigurationError
from mfuser_ros.network.model import MFuser
from mfuser_ros.training import processes
from mfuser_ros.training.config import TrainConfig, load_recipe
from mfuser_ros.training.draws import Draws
from mfuser_ros.training.journal import Journal
from mfuser_ros.training.loop import Limits, train
from mfuser_ros.training.saving import replaced

CPU = torch.device("cpu")


def test_best_and_last_are_kept_and_say_so(recipe: TrainConfig, data: Path, towers: Path, tmp_path: Path) -> None:
    content = recipe.model_dump()
    content |= {"log_steps": 1, "validation": {**content["validation"], "minutes": None, "steps": 1}}
    content["optimizer"]["ema"] = None
    plain = TrainConfig.model_validate(content)
    scores = iter([40.0, 42.5, 41.0])
    modes = []

    def validate(model: MFuser) -> Mapping[str, float]:
        modes.append(model.training)
        return {"val_miou": next(scores), "road_iou": 90.0}

    result = train(plain, data=data, towers=towers, out=tmp_path, device=CPU, limits=Limits(steps=3),
                   validate=validate)  # fmt: skip

    assert modes == [False, False, False]
    assert result.training  # without an average the network itself ships, and trains on
    last, best = torch.load(tmp_path / "state.pt"), torch.load(tmp_path / "state_best.pt")
    assert (last["step"], best["step"]) == (3, 2)
    assert last["best"] == {"name": "val_miou", "value": 42.5, "step": 2}
    assert all(torch.equal(last["model"][name], tensor) for name, tensor in result.state_dict().items())
    _, best_card = load_model(tmp_path / "small_best.safetensors")
    assert best_card.provenance.endswith("the best of its validations: val_miou 42.5 at step 2")
    _, last_card = load_model(tmp_path / "small.safetensors")
    assert last_card.provenance.endswith("the last checkpoint, validated: val_miou 41 at step 3")

    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("val_miou")] == [(1, 40.0), (2, 42.5), (3, 41.0)]
    assert [event.step for event in board.Scalars("total")] == [1, 2, 3]
    [session] = json.loads((tmp_path / "run.json").read_text())
    assert TrainConfig.model_validate(session["recipe"]) == plain
    assert len(session["sha256"][plain.towers.vfm]) == 64

    other = TrainConfig.model_validate({**content, "crop": {**content["crop"], "size": (64, 64)}})
    with pytest.raises(CheckpointError, match=r"belongs to another recipe \(crop\.size\.1 was 96, is 64\)"):
        train(other, data=data, towers=towers, out=tmp_path / "x", device=CPU, limits=Limits(steps=3),
              resume=tmp_path / "state_best.pt")  # fmt: skip
    (tmp_path / "cut.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cut\.pt: no state to resume from") as caught:
        train(plain, data=data, towers=towers, out=tmp_path / "x", device=CPU, limits=Limits(steps=3),
              resume=tmp_path / "cut.pt")  # fmt: skip
    assert "\n" not in str(caught.value)


def test_log_takes_back_what_was_lost(tmp_path: Path) -> None:
    rows = [json.dumps({"step": step, "total": 1.0}) for step in (2, 4, 6)]
    (tmp_path / "log.jsonl").write_text("\n".join([*rows, '{"step": 8, "tot']))
    seen: list[Mapping[str, float]] = []
    journal = Journal(tmp_path, step=4, report=seen.append)
    journal({"step": 6, "total": 2.0})
    journal.close()
    kept = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert kept == [{"step": 2, "total": 1.0}, {"step": 4, "total": 1.0}, {"step": 6, "total": 2.0}]
    assert seen == [{"step": 6, "total": 2.0}]


def test_file_that_could_not_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "state.pt"
    target.write_text("old")

    def half(path: Path) -> None:
        path.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        replaced(target, half)
    assert [file.name for file in tmp_path.glob("state*")] == ["state.pt"]
    assert target.read_text() == "old"


def test_processes_that_do_not_divide_the_batch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 3)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    assert Draws([6, 3], CPU).rows.tolist() == [2, 3, 7]  # the second third of each source
    with pytest.raises(ConfigurationError, match="8 samples of a source cannot be shared equally by 3 processes"):
        Draws([6, 8], CPU)


def test_split_draws_are_rows_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    whole = Draws([4, 2], CPU).rand(5)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(processes, "count", lambda: 2)
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        torch.manual_seed(0)
        parts.append(Draws([4, 2], CPU).rand(5))
    assert torch.equal(torch.cat(parts), whole[[0, 1, 4, 2, 3, 5]])


def _normalise_half(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    norm, x, weight = _norm_case()
    processes.share_batch_norms(norm)
    half = x[2 * rank : 2 * rank + 2].clone().requires_grad_()
    y = norm(half)
    (y * weight[2 * rank : 2 * rank + 2]).sum().backward()
    torch.save((y.detach(), half.grad, norm[0].weight.grad, norm.state_dict()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def _norm_case() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    norm = nn.Sequential(nn.BatchNorm2d(3))
    with torch.no_grad():
        norm[0].weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
    return norm, torch.randn(4, 3, 5, 6, generator=generator) * 3 + 1, torch.randn(4, 3, 5, 6, generator=generator)


def test_batch_norm_sees_the_samples_of_all_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_normalise_half, (str(tmp_path),), nprocs=2)
    norm, x, weight = _norm_case()
    x.requires_grad_()
    y = norm(x)
    (y * weight).sum().backward()

    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]

    torch.testing.assert_close(torch.cat([half[0] for half in halves]), y.detach())
    torch.testing.assert_close(torch.cat([half[1] for half in halves]), x.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(halves[0][2] + halves[1][2], norm[0].weight.grad, atol=1e-4, rtol=1e-4)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(halves[1][3][name], value)


def test_recipe_is_laid_over_its_bases_in_their_order(tmp_path: Path) -> None:
    small = Path(__file__).parents[2] / "config" / "train" / "small.yaml"
    (tmp_path / "longer.yaml").write_text("steps: 7\noptimizer: {clip: 3, ema: null}\n")
    (tmp_path / "mine.yaml").write_text(f"base: [{small}, longer.yaml]\noptimizer: {{clip: 4}}\n")
    recipe, base = load_recipe(tmp_path / "mine.yaml"), load_recipe(small)
    assert (recipe.steps, recipe.optimizer.clip, recipe.optimizer.ema) == (7, 4, None)
    assert recipe.optimizer.rate == base.optimizer.rate
    assert recipe.sources == base.sources


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("base: [none.yaml]", r"none\.yaml: cannot be read"),
        ("base: none.yaml", r"mine\.yaml: base: must be a list of files"),
        ("base: [mine.yaml]", r"mine\.yaml: is its own base"),
        ("base: [list.yaml]", r"list\.yaml: must be a mapping"),
    ],
)
def test_wrong_base_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ConfigurationError, match=sentence):
        load_recipe(tmp_path / "mine.yaml")
