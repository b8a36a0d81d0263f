"""The published recipes, end to end at tiny size: original encoders' files in, a model file out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import load_model, rebuild
from mfuser_ros.checkpoints.golden import Golden, read_golden
from mfuser_ros.commands.app import app
from mfuser_ros.network.config import merged
from mfuser_ros.training.config import load_recipe
from mfuser_ros.training.start import initial_model

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "test" / "golden"
# names of the weights in the encoders' own files, for those in a published MFuser
THEIRS = {
    "eva02-l": (("text_encoder.", "text."), ("backbone.", "visual.")),
    "clip-l": (("text_encoder.", ""), ("backbone.", "visual.")),
    "siglip-l": (("text_encoder.", "text_model."), ("backbone.", "vision_model.")),
}
VARIANTS = {"eva02-l": "eva", "clip-l": "clip", "siglip-l": "siglip"}


def _vlm_file(golden: Golden, preset: str, path: Path) -> None:
    weights = {}
    for name, tensor in golden.weights.items():
        if name.startswith(("backbone.dino", "backbone.adapter", "backbone.fpn")):
            continue
        for prefix, theirs in THEIRS[preset]:
            if name.startswith(prefix):
                weights[theirs + name.removeprefix(prefix)] = tensor.clone()
                break
    if preset == "siglip-l":
        weights |= {"logit_scale": torch.tensor([2.3]), "logit_bias": torch.tensor([-1.7])}
        save_file(weights, path)
    else:
        torch.save(weights | {"logit_scale": torch.tensor(4.6)}, path)


def _dino_file(golden: Golden, path: Path) -> None:
    sizes = golden.sizes["dino"]
    options = {"img_size": 70, "patch_size": 14, "embed_dim": sizes["dim"], "num_heads": sizes["heads"]}
    network = timm.create_model("vit_large_patch14_dinov2", depth=golden.sizes["blocks"], **options)
    torch.save({**network.state_dict(), "mask_token": torch.zeros(1, sizes["dim"])}, path)


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes encoders' files to tmp_path/encoders and a recipe on top of a published one that shrinks it."""

    def write(preset: str, source: str) -> Path:
        golden = read_golden(GOLDEN / f"model_{VARIANTS[preset]}_tiny")
        base = ROOT / "config" / "train" / f"{preset}_{source}.yaml"
        published = load_recipe(base)
        folder = tmp_path / "encoders"
        folder.mkdir()
        name = "vlm.safetensors" if preset == "siglip-l" else published.towers.vlm
        _vlm_file(golden, preset, folder / name)
        _dino_file(golden, folder / published.towers.vfm)
        towers = {"vlm": name}
        if preset == "siglip-l":
            ids = dict(zip(vocabulary.load().names, golden["in.texts"].tolist(), strict=True))
            (folder / "ids.json").write_text(json.dumps(ids))
            towers["tokens"] = "ids.json"
        changes = rebuild.architecture(golden).model_dump(mode="json", exclude={"name", "score_scale", "score_bias"})
        if preset != "siglip-l":  # the tokenizer's own ids; the golden's tower knows fewer
            changes["text"]["vocabulary"] = golden.sizes["vocab"]
        side = golden.sizes["image"]
        [only] = published.model_dump(mode="json")["sources"]
        rare = {**only["rare_classes"], "picture_pixels": 100, "crop_pixels": 50}
        content = {
            "base": [str(base)],
            "changes": changes,
            "towers": towers,
            "sources": [{**only, "rare_classes": rare}],
            "validation": {"every_nth": 2, "steps": 1},
            "crop": {"size": [side, side]},
            "losses": {"points": 32},
            "steps": 2,
            "log_steps": 1,
            "save_steps": 1,
            "workers": 0,
        }
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


TQDM = {
    "changes": {"towers": "vlm", "fusion": {"kind": "none"}, "enhancer": {"kind": "cross-attention", "layers": 3}},
    "losses": {"language": 1, "vision": 1},
    "optimizer": {"tower_rate": 1.0e-5},
}
REIN = {
    "changes": {
        "towers": "vfm", "fusion": {"kind": "rein"}, "neck": {"kind": "resized", "taps": [0, 1, 2, 4]},
        "enhancer": {"kind": "none"}, "text": {"kind": "linked"}, "head": {"text_attention": False},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "unread"),
    [(TQDM, "vfm"), (REIN, "vlm"), ({"changes": {"towers": "vfm"}}, "")],
    ids=["tqdm", "rein", "vfm-only"],
)
def test_rows_of_one_tower_train_from_the_original_encoders(
    row: dict[str, dict[str, object]],
    unread: str,
    tiny: Callable[[str, str], Path],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tiny("eva02-l", "gta5")
    for user in ("checkpoints.store", "training.regularisers"):  # the tiny tower has few ids
        monkeypatch.setattr(f"mfuser_ros.{user}.tokenize", lambda names, tokens: [[1, 2, 3, 0, 0]] * len(names))
    content = yaml.safe_load(recipe.read_text())
    for part, entries in row.items():
        content[part] = merged(content.get(part, {}), entries)
    if "text" in row["changes"]:
        content["changes"] |= {"text": row["changes"]["text"], "neck": row["changes"]["neck"]}
    recipe.write_text(yaml.safe_dump(content))
    if unread:
        (tmp_path / "encoders" / getattr(load_recipe(recipe).towers, unread)).unlink()

    folders = ["--data", data, "--towers", tmp_path / "encoders", "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, ["train", *map(str, [recipe, *folders, "--device", "cpu"])])

    assert result.exit_code == 0, (result.output, result.exception)
    network, _ = load_model(tmp_path / "out" / "eva02-l.safetensors")
    start = initial_model(load_recipe(recipe), tmp_path / "encoders").state_dict()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, start[name].half().float())}
    assert any(name.startswith("vlm.") for name in moved) == (row is TQDM)  # the only one whose tower learns
    assert any(name.startswith("mask_decoder.") for name in moved)


@pytest.mark.parametrize("preset", VARIANTS)
def test_published_recipe_trains_end_to_end(
    preset: str, tiny: Callable[[str, str], Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(preset, "gta5")
    if preset != "siglip-l":
        golden = read_golden(GOLDEN / f"model_{VARIANTS[preset]}_tiny")
        ids = golden["in.texts"].tolist() if "in.texts" in golden.tensors else [[1, 2, 3, 0, 0]] * 19
        monkeypatch.setattr("mfuser_ros.checkpoints.store.tokenize", lambda names, tokens: ids)  # of the tiny tower
    before = initial_model(load_recipe(recipe), tmp_path / "encoders")

    folders = ["--data", data, "--towers", tmp_path / "encoders", "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, ["train", *map(str, [recipe, *folders, "--device", "cpu"])])

    assert result.exit_code == 0, (result.output, result.exception)
    network, card = load_model(tmp_path / "out" / f"{preset}.safetensors")
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "total" in row] == [1, 2]
    assert [row["step"] for row in rows if "cityscapes/val_miou" in row] == [1, 2]
    assert all(row["skipped"] == 0 for row in rows if "total" in row)
    start = before.state_dict()
    moved = {
        name for name, tensor in network.state_dict().items() if not torch.equal(tensor, start[name].half().float())
    }
    assert not any(name.startswith(("vfm.", "vlm.")) for name in moved)
    assert {name for name in moved if name.startswith("text.")} <= {"text.contexts"}
    assert any(name.startswith("mask_decoder.") for name in moved)
    assert "validated: cityscapes/val_miou" in card.provenance
    best, best_card = load_model(tmp_path / "out" / f"{preset}_best.safetensors")
    assert "the best of its validations: cityscapes/val_miou" in best_card.provenance
    assert best.architecture == network.architecture
