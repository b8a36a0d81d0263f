"""Published checkpoints in every container, and those that must be refused."""

import hashlib
import json
import os
import re
from collections import OrderedDict, deque
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import typer
import yaml
from safetensors import safe_open
from typer.testing import CliRunner

import mfuser_ros
from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import convert as conversion
from mfuser_ros.checkpoints import load_model, rebuild
from mfuser_ros.checkpoints.golden import read_golden
from mfuser_ros.commands.app import app
from mfuser_ros.commands.convert import convert as convert_command
from mfuser_ros.errors import CheckpointError, ConfigurationError, VocabularyError
from mfuser_ros.network.config import PRESETS
from mfuser_ros.vocabulary import Vocabulary

TINY = Path(__file__).parents[1] / "golden" / "model_eva_tiny"


@pytest.fixture(scope="module")
def golden():
    return read_golden(TINY)


@pytest.fixture
def tiny_preset(golden, monkeypatch):
    """`eva02-l` at the sizes of the golden, with a text vocabulary large enough for real class names."""
    architecture = rebuild.architecture(golden)
    text = architecture.text.model_copy(update={"vocabulary": 49408})
    monkeypatch.setitem(PRESETS, "eva02-l", architecture.model_copy(update={"text": text}))


@pytest.fixture
def weights(golden) -> dict[str, torch.Tensor]:
    rows = golden.weights["text_encoder.token_embedding.weight"]
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(49408, rows.shape[1], generator=generator)
    return {**golden.weights, "text_encoder.token_embedding.weight": embedding}


def bare(weights, path):
    torch.save(weights, path)


def as_mmcv_writes(weights, path):
    meta = {"CLASSES": ("road", "sidewalk"), "PALETTE": [[128, 64, 128]], "iter": 20000, "config": "model = dict()"}
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    torch.save({"meta": meta, "state_dict": weights, "optimizer": optimizer}, path)


def of_several_gpus(weights, path):
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, path)


def without_counter(weights, path):
    torch.save({name: tensor for name, tensor in weights.items() if "num_batches" not in name}, path)


def as_safetensors(weights, path):
    safetensors.torch.save_file(weights, path)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (bare, "published.pth"),
        (as_mmcv_writes, "published.pth"),
        (of_several_gpus, "published.pth"),
        (without_counter, "published.pth"),
        (as_safetensors, "published.safetensors"),
    ],
)
def test_published_checkpoint_becomes_a_model_that_loads(tiny_preset, weights, tmp_path, write, name):
    write(weights, tmp_path / name)

    made = conversion.convert(tmp_path / name, tmp_path / "ours.safetensors")

    network, file = load_model(tmp_path / "ours.safetensors")
    assert file == made.file
    assert file.vocabulary == vocabulary.load().names
    assert name in file.provenance
    ours = network.state_dict()
    torch.testing.assert_close(
        ours["fusion.3.mvfuser.dt_proj.bias"], weights["backbone.adapter.3.dt_proj.bias"], rtol=2**-10, atol=6e-8
    )
    assert made.tensors == len(ours) - (write is without_counter)
    assert set(made.dropped.values()) == {
        "nothing reads it",
        "DINOv2 used it in its own training alone",
        "rotary table, computed from the grid",
    }
    assert network.text.ids.tolist()[6] == [49406, 3399, 1395, 49407, 0]  # traffic light


@torch.no_grad()
def test_converted_model_segments_like_the_published_one(golden, tiny_preset, weights, tmp_path):
    bare(weights, tmp_path / "published.pth")
    conversion.convert(tmp_path / "published.pth", tmp_path / "ours.safetensors")
    converted = load_model(tmp_path / "ours.safetensors")[0]
    picture = torch.rand(1, 3, 60, 60, generator=torch.Generator().manual_seed(0)) * 255

    pyramid = converted.encode(picture).pyramid

    reference = rebuild.mfuser(golden).encode(picture).pyramid
    for ours, theirs in zip(pyramid, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)  # fp16 weights


def tiny(name, monkeypatch, **text):
    """A golden of another variant, and its preset at the golden's sizes."""
    golden = read_golden(TINY.with_name(f"model_{name}_tiny"))
    architecture = rebuild.architecture(golden)
    changed = architecture.text.model_copy(update=text)
    monkeypatch.setitem(PRESETS, f"{name}-l", architecture.model_copy(update={"text": changed}))
    return golden


@torch.no_grad()
def segments_like(golden, path) -> None:
    converted = load_model(path)[0]
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    ours, theirs = converted.encode(picture), rebuild.mfuser(golden).encode(picture)
    for level, reference in zip([*ours.pyramid, ours.picture], [*theirs.pyramid, theirs.picture], strict=True):
        torch.testing.assert_close(level, reference, rtol=0.02, atol=0.02)  # fp16 weights


def test_clip_is_found_by_its_names_and_converted(monkeypatch, tmp_path):
    golden = tiny("clip", monkeypatch, vocabulary=49408)
    rows = torch.zeros(49408, golden.weights["text_encoder.token_embedding.weight"].shape[1])
    bare({**golden.weights, "text_encoder.token_embedding.weight": rows}, tmp_path / "published.pth")

    made = conversion.convert(tmp_path / "published.pth", tmp_path / "ours.safetensors")

    assert made.preset == "clip-l"
    assert set(made.dropped) == {"backbone.dinov2.mask_token"}
    assert load_model(tmp_path / "ours.safetensors")[0].text.ids.tolist()[0] == [49406, 1759, 49407, 0, 0]  # road
    segments_like(golden, tmp_path / "ours.safetensors")


def write_ids(golden, path) -> None:
    ids = dict(zip(vocabulary.load().names, golden["in.texts"].tolist(), strict=True))
    path.write_text(json.dumps(ids))


def test_siglip_is_converted_with_token_ids_which_the_model_keeps(monkeypatch, tmp_path):
    golden = tiny("siglip", monkeypatch)
    bare(golden.weights, tmp_path / "published.pth")
    write_ids(golden, tmp_path / "ids.json")

    made = conversion.convert(tmp_path / "published.pth", tmp_path / "ours.safetensors", tokens=tmp_path / "ids.json")

    assert made.preset == "siglip-l"
    assert sum("never uses" in reason for reason in made.dropped.values()) == 2 * (5 + 5 + 1)
    network, file = load_model(tmp_path / "ours.safetensors")
    assert network.text.ids.tolist() == golden["in.texts"].tolist() == [list(row) for row in file.token_ids]
    with torch.no_grad():
        torch.testing.assert_close(network.text(), golden["out.text_raw"], rtol=0.02, atol=0.02)
    segments_like(golden, tmp_path / "ours.safetensors")


def test_converted_siglip_reads_other_words_by_the_ids_beside_it(monkeypatch, tmp_path):
    golden = tiny("siglip", monkeypatch)
    bare(golden.weights, tmp_path / "published.pth")
    write_ids(golden, tmp_path / "ids.json")
    ours = tmp_path / "ours.safetensors"
    conversion.convert(tmp_path / "published.pth", ours, tokens=tmp_path / "ids.json")
    kept = tmp_path / "ours.tokens.json"
    assert kept.read_bytes() == (tmp_path / "ids.json").read_bytes()
    entries = [entry.model_dump() for entry in vocabulary.load().classes]
    entries[0]["queries"] = ["tarmac", "road"]
    words = Vocabulary.model_validate({"classes": entries})
    with pytest.raises(VocabularyError, match=r"ours\.tokens\.json: 'tarmac' needs a list of 5 ids"):
        mfuser_ros.load(ours, device="cpu", vocabulary=words)

    kept.write_text(json.dumps({**json.loads(kept.read_text()), "tarmac": [9, 8, 1, 1, 1]}))
    text = mfuser_ros.load(ours, device="cpu", vocabulary=words).model.text()

    tower = load_model(ours)[0].text
    with torch.no_grad():
        plain = tower()
        tower.set_token_ids([[9, 8, 1, 1, 1]] * 19)
        torch.testing.assert_close(text[0], (plain[0] + tower()[0]) / 2)
    torch.testing.assert_close(text[1:], plain[1:])
    kept.unlink()
    with pytest.raises(VocabularyError, match=r"spiece\.model as NAME\.tokens\.model"):
        mfuser_ros.load(ours, device="cpu", vocabulary=words)


def test_siglip_without_token_ids_is_refused(monkeypatch, tmp_path):
    bare(tiny("siglip", monkeypatch).weights, tmp_path / "published.pth")
    with pytest.raises(ConfigurationError, match="its tokenizer does not ship with us: give --tokens"):
        conversion.convert(tmp_path / "published.pth", tmp_path / "ours.safetensors")


def test_token_ids_outside_the_text_tower_are_refused(monkeypatch, tmp_path):
    golden = tiny("siglip", monkeypatch)
    bare(golden.weights, tmp_path / "published.pth")
    ids = {name: [1, 2, 3, 4, 64] for name in vocabulary.load().names}
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    with pytest.raises(ConfigurationError, match="token ids 1 to 64: the tower knows 0 to 63"):
        conversion.convert(tmp_path / "published.pth", tmp_path / "ours.safetensors", tokens=tmp_path / "ids.json")
    assert not (tmp_path / "ours.safetensors").exists()


def test_token_ids_for_a_variant_with_a_tokenizer_are_refused(tiny_preset, weights, tmp_path):
    bare(weights, tmp_path / "published.pth")
    with pytest.raises(ConfigurationError, match="leave --tokens out"):
        conversion.convert(tmp_path / "published.pth", tmp_path / "ours.safetensors", tokens=tmp_path / "ids.json")


@pytest.mark.parametrize("name", ["eva", "siglip"])
@torch.no_grad()
def test_without_its_text_tower_a_model_gives_the_same_from_stored_embeddings(name, monkeypatch, tmp_path):
    preset = {"eva": "eva02-l", "siglip": "siglip-l"}[name]
    golden = read_golden(TINY.with_name(f"model_{name}_tiny"))
    architecture = rebuild.architecture(golden)
    text = architecture.text.model_copy(update={"vocabulary": 49408})
    monkeypatch.setitem(PRESETS, preset, architecture.model_copy(update={"text": text}))
    embedding = torch.randn(49408, text.width, generator=torch.Generator().manual_seed(0))
    key = next(key for key in golden.weights if key.endswith("token_embedding.weight"))
    bare({**golden.weights, key: embedding}, tmp_path / "published.pth")
    tokens = tmp_path / "ids.json" if name == "siglip" else None
    if tokens:
        write_ids(golden, tokens)

    whole = conversion.convert(tmp_path / "published.pth", tmp_path / "whole.safetensors", tokens=tokens)
    less = conversion.convert(tmp_path / "published.pth", tmp_path / "less.safetensors", tokens=tokens, drop_text=True)

    with_tower, without = load_model(whole.path)[0], load_model(less.path)[0]
    assert not [weight for weight in without.state_dict() if weight.startswith("text.") and weight != "text.embeddings"]
    assert less.path.stat().st_size < whole.path.stat().st_size - 2 * embedding.numel()
    left_out = [theirs for theirs, reason in less.dropped.items() if "text tower, left out" in reason]
    assert "contexts" in left_out
    assert less.tensors + len(left_out) == whole.tensors
    assert less.file.token_ids is None
    torch.testing.assert_close(without.text(), with_tower.text(), rtol=5e-3, atol=5e-3)  # fp16 weights, a tower deep
    side = architecture.input.crop
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 255
    ours, theirs = without.predict(picture), with_tower.predict(picture)
    torch.testing.assert_close(ours.class_logits, theirs.class_logits, rtol=0.02, atol=0.02)


def test_words_that_a_model_without_text_tower_cannot_know_are_refused(tiny_preset, weights, tmp_path):
    bare(weights, tmp_path / "published.pth")
    conversion.convert(tmp_path / "published.pth", tmp_path / "ours.safetensors", drop_text=True)
    names = vocabulary.load().names
    entries = [
        {"id": index, "name": name, "queries": [name], "colour": [0, 0, 0], "role": "static"}
        for index, name in enumerate(names)
    ]
    entries[0]["queries"] = ["paved street"]

    with pytest.raises(VocabularyError, match=r"'paved street'.*converted without its text tower.*without --drop-text"):
        mfuser_ros.load(
            tmp_path / "ours.safetensors", device="cpu", vocabulary=vocabulary.Vocabulary(classes=tuple(entries))
        )
    assert mfuser_ros.load(tmp_path / "ours.safetensors", device="cpu").vocabulary.names == names


def test_provenance_is_in_both_files_and_shown_by_info(tiny_preset, weights, tmp_path):
    bare(weights, tmp_path / "published.pth")
    source = hashlib.sha256((tmp_path / "published.pth").read_bytes()).hexdigest()

    made = conversion.convert(tmp_path / "published.pth", tmp_path / "ours.safetensors")

    today = f"{datetime.now(timezone.utc):%Y-%m-%d}"  # a test at midnight may fail once
    facts = ["published.pth", source, today, f"`mfuser convert` {mfuser_ros.__version__} on "]
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        inside = file.metadata()["provenance"]
    description = yaml.safe_load((tmp_path / "ours.yaml").read_text())
    assert inside == description["provenance"] == made.file.provenance
    assert all(fact in inside for fact in facts)
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "ours.safetensors")], env={"COLUMNS": "300"})
    assert shown.exit_code == 0, shown.output
    assert all(fact in " ".join(shown.stdout.split()) for fact in facts)


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def test_pickle_with_code_in_it_is_refused_and_not_run(weights, tmp_path):
    marker = tmp_path / "code_ran"
    torch.save({"state_dict": weights, "meta": RunsCode(marker)}, tmp_path / "published.pth")
    with pytest.raises(CheckpointError, match=r"published\.pth: holds more than tensors and plain values") as caught:
        conversion.convert(tmp_path / "published.pth", tmp_path / "ours.safetensors")
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    assert not (tmp_path / "ours.safetensors").exists()


@pytest.mark.parametrize(
    "extra",
    [
        {"classes": ("road",), "palette": [[128, 64, 128]], "seed": None, "deterministic": False, "lr": 1e-4},
        {"text": "model = dict(type='MFuser')", "bytes": b"raw", "set": {1, 2}},
        {"ordered": OrderedDict(a=1), "size": torch.Size([1, 2]), "type": torch.float32},
    ],
)
def test_plain_values_beside_the_weights_are_allowed(weights, tmp_path, extra):
    torch.save({"meta": extra, "state_dict": OrderedDict(weights)}, tmp_path / "published.pth")
    assert set(conversion.read_published(tmp_path / "published.pth")) == set(weights)


@pytest.mark.parametrize("value", [Path("config.py"), np.float64(0.1), deque(), datetime(2025, 6, 5), print])
def test_any_other_object_beside_the_weights_is_refused_by_its_name(weights, tmp_path, value):
    torch.save({"meta": {"value": value}, "state_dict": weights}, tmp_path / "published.pth")
    with pytest.raises(CheckpointError, match=r"published\.pth: holds more than tensors and plain values"):
        conversion.read_published(tmp_path / "published.pth")


def unknown_key(weights, path):
    torch.save(weights | {"backbone.adapter_proj3.bias": torch.zeros(4)}, path)


def missing_key(weights, path):
    torch.save({name: tensor for name, tensor in weights.items() if name != "decode_head.cls_embed.bias"}, path)


def other_shape(weights, path):
    torch.save(weights | {"gamma": torch.zeros(4)}, path)


def twice_the_same(weights, path):
    torch.save(weights | {"backbone.blocks.0.attn.q_proj.bias": torch.zeros(24)}, path)


def no_tensor(weights, path):
    torch.save(weights | {"gamma": 3.0}, path)


def no_state_dict(weights, path):
    torch.save([1, 2, 3], path)


def empty(weights, path):
    path.write_bytes(b"")


def truncated(weights, path):
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:-2000])


def absent(weights, path):
    return


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (unknown_key, r"backbone\.adapter_proj3\.bias is no weight of this preset"),
        (missing_key, r"the weight that we call mask_decoder\.class_embed\.bias is missing"),
        (other_shape, r"gamma has shape \(4,\), model_eva_tiny needs \(28,\)"),
        (twice_the_same, r"backbone\.blocks\.0\.attn\.q_.* are the same weight"),
        (no_tensor, r"gamma is no tensor"),
        (no_state_dict, r"holds no state dict"),
        (empty, r"is no whole checkpoint|is corrupt"),
        (truncated, r"is no whole checkpoint"),
        (absent, r"published\.pth: cannot be read"),
    ],
)
def test_checkpoint_that_is_no_whole_mfuser_is_refused_in_one_line(tiny_preset, weights, tmp_path, write, sentence):
    write(weights, tmp_path / "published.pth")
    with pytest.raises(CheckpointError, match=sentence) as caught:
        conversion.convert(tmp_path / "published.pth", tmp_path / "ours.safetensors")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours.safetensors").exists()


def test_preset_without_a_layout_is_refused(tmp_path):
    with pytest.raises(
        CheckpointError, match="preset 'small': cannot be converted: choose one of eva02-l, clip-l, siglip-l"
    ):
        conversion.convert(tmp_path / "published.pth", tmp_path / "ours.safetensors", preset="small")


def test_command_says_what_was_written_and_what_was_dropped(tiny_preset, weights, tmp_path):
    bare(weights, tmp_path / "published.pth")
    app = typer.Typer()
    app.command()(convert_command)

    result = CliRunner().invoke(app, [str(tmp_path / "published.pth"), str(tmp_path / "ours.safetensors")])

    assert result.exit_code == 0, result.output
    written = load_model(tmp_path / "ours.safetensors")[1]
    lines = result.stdout.replace("\n", " ")
    assert written.sha256 in lines
    assert re.search(
        r"dropped \S+\.freqs_\S+ and 11 more: rotary table", lines
    )  # sine and cosine: five blocks, the tower
    assert "threshold and temperature are not fitted" in lines
    assert (written.threshold, written.temperature) == (0.0, 1.0)
