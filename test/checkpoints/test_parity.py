"""Every golden of the network, of all variants, through the published state dict and the key map."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import typer
from typer.testing import CliRunner

from mfuser_ros.checkpoints import rebuild
from mfuser_ros.checkpoints.golden import compare, read_golden
from mfuser_ros.checkpoints.parity import parity
from mfuser_ros.commands.parity import parity as parity_command
from mfuser_ros.errors import CheckpointError
from mfuser_ros.inference.windows import slide, starts
from mfuser_ros.network.config import CLIP_MEAN, CLIP_STD
from mfuser_ros.network.mask_decoder import assemble

GOLDEN = Path(__file__).parents[1] / "golden"
# name, and how many tensors must at least be compared: results, gradients and captured intermediates
NAMES = {
    "unit_mvfuser": 16,
    "unit_context_decoder": 48,
    "unit_ms_deform_attn": 12,
    "unit_pixel_decoder": 14,
    "unit_tqdm_head": 22,
    "unit_extract_feats_eva": 32,
    "unit_extract_feats_clip": 32,
    "unit_extract_feats_clip_resized": 7,
    "unit_extract_feats_siglip": 32,
    "unit_text_encoder_eva": 5,
    "unit_text_encoder_clip": 5,
    "unit_text_encoder_siglip": 5,
    "model_eva_tiny": 15,
    "model_clip_tiny": 15,
    "model_siglip_tiny": 15,
    "unit_slide_eva": 5,
    "unit_normalise": 7,
    "unit_tokenize_clip": 2,
}
IMPORTS = {"dino_p14": 2, "dino_p16": 2, "eva": 5, "clip": 4, "siglip": 5}  # and how many tensors are compared


@pytest.mark.parametrize("name", NAMES)
def test_network_reproduces_the_published_numbers(name):
    rows = parity(GOLDEN / name, slide=slide, starts=starts)

    assert [row for row in rows if not row.ok] == []
    assert len(rows) >= NAMES[name]
    recorded = json.loads((GOLDEN / f"{name}.json").read_text())["tensors"]
    results = {key for key in recorded if key.startswith(("out.", "grad.", "grad_in."))}
    assert results <= {row.key for row in rows}


@pytest.mark.parametrize("name", IMPORTS)
def test_encoders_are_imported_as_published(name, tmp_path):
    """Four channels of each recorded import, written as the golden that they were cut from."""
    recorded = safetensors.torch.load_file(GOLDEN / "weight_import_4channels.safetensors")
    tensors = {key.removeprefix(f"{name}/"): tensor for key, tensor in recorded.items() if key.startswith(f"{name}/")}
    write_golden(tmp_path / f"unit_weight_import_{name}", {}, {"atol": 2e-5, "rtol": 1e-4}, tensors)

    rows = parity(tmp_path / f"unit_weight_import_{name}", slide=slide, starts=starts)

    assert [row for row in rows if not row.ok] == []
    assert {row.key for row in rows} == {key for key in tensors if key.startswith("out.")}
    assert len(rows) == IMPORTS[name]


def test_scale_and_bias_of_siglip_are_compared(tmp_path):
    tensors = {
        "in.logit_scale": torch.tensor([2.3]),
        "in.logit_bias": torch.tensor([-1.7]),
        "out.backbone.logit_scale": torch.tensor([2.3]),
        "out.backbone.logit_bias": torch.tensor([-1.6]),
    }
    write_golden(tmp_path / "unit_weight_import_siglip", {}, {"atol": 1e-6, "rtol": 1e-5}, tensors)
    rows = parity(tmp_path / "unit_weight_import_siglip", slide=slide, starts=starts)
    assert {row.key: row.ok for row in rows} == {"out.backbone.logit_scale": True, "out.backbone.logit_bias": False}


def write_golden(stem, sizes, tolerance, tensors, **more) -> None:
    manifest = {"name": stem.name, "hyperparameters": sizes, "tolerance": tolerance, **more}
    stem.with_suffix(".json").write_text(json.dumps(manifest))
    safetensors.torch.save_file(tensors, stem.with_suffix(".safetensors"))


@pytest.mark.parametrize(
    ("lender", "batch", "height", "width"),
    [("eva", 3, 60, 60), ("siglip", 2, 64, 64), ("clip", 3, 64, 64), ("clip", 1, 96, 80)],  # CLIP takes any crop
)
@torch.no_grad()
def test_batch_and_crop_are_those_of_the_recorded_picture(tmp_path, lender, batch, height, width):
    for suffix in (".json", ".safetensors"):
        shutil.copy(GOLDEN / f"model_{lender}_tiny{suffix}", tmp_path)
    network = rebuild.mfuser(read_golden(tmp_path / f"model_{lender}_tiny"))
    image = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    raw = image * torch.tensor(CLIP_STD).view(-1, 1, 1) + torch.tensor(CLIP_MEAN).view(-1, 1, 1)
    scores = torch.nn.functional.interpolate(assemble(network.predict(raw)), (height, width), mode="bilinear")
    tensors = {"in.img": image, "out.logits": scores, "in.texts": network.text.ids, "out.text_raw": network.text()}
    write_golden(
        tmp_path / "model_other_size", {}, {"atol": 1e-5, "rtol": 1e-4}, tensors,
        sd_from={"golden": f"model_{lender}_tiny"},
    )  # fmt: skip

    rows = parity(tmp_path / "model_other_size", slide=slide, starts=starts)

    assert [(row.key, row.ok) for row in rows] == [("out.logits", True), ("out.text_raw", True)]


def test_golden_of_something_else_is_refused_with_the_reason(tmp_path):
    write_golden(tmp_path / "unit_preprocess", {}, {}, {})
    with pytest.raises(CheckpointError, match=r"golden unit_preprocess: cannot be replayed: it records"):
        parity(tmp_path / "unit_preprocess", slide=slide, starts=starts)


@pytest.mark.parametrize("name", ["unit_tqdm_head", "model_eva_tiny", "model_clip_tiny", "model_siglip_tiny"])
def test_attention_masks_are_compared_exactly(name):
    masks = [row for row in parity(GOLDEN / name, slide=slide, starts=starts) if "attn_mask" in row.key]
    assert len(masks) == 4
    assert {row.tolerance for row in masks} == {"exact"}


@pytest.fixture
def golden_copy(tmp_path) -> Path:
    for suffix in (".json", ".safetensors"):
        shutil.copy(GOLDEN / f"unit_mvfuser{suffix}", tmp_path)
    return tmp_path / "unit_mvfuser"


def change(stem: Path, key: str, amount: float) -> None:
    file = stem.with_suffix(".safetensors")
    tensors = safetensors.torch.load_file(file)
    tensors[key].view(-1)[0] += amount
    safetensors.torch.save_file(tensors, file)


@pytest.mark.parametrize("key", ["sd.dt_proj.bias", "in.x", "out.y", "grad.A_log"])
def test_changed_number_is_found(golden_copy, key):
    change(golden_copy, key, 0.01)
    assert not all(row.ok for row in parity(golden_copy, slide=slide, starts=starts))


def test_difference_within_the_tolerance_is_parity(golden_copy):
    change(golden_copy, "out.y", 5e-6)
    assert all(row.ok for row in parity(golden_copy, slide=slide, starts=starts))


def test_number_that_is_none_is_no_parity():
    golden = read_golden(GOLDEN / "unit_normalise")
    computed = {key: golden[key].clone() for key in golden.keys("out.")}
    computed["out.network_input"].view(-1)[0] = torch.nan
    bad = [row for row in compare(golden, computed) if not row.ok]
    assert [(row.key, row.difference) for row in bad] == [("out.network_input", float("inf"))]


def test_result_of_another_shape_is_no_parity():
    golden = read_golden(GOLDEN / "unit_normalise")
    computed = {key: golden[key] for key in golden.keys("out.")}
    computed["out.network_input"] = computed["out.network_input"][..., :-1]
    assert [row.key for row in compare(golden, computed) if not row.ok] == ["out.network_input"]


def test_result_that_was_not_computed_is_an_error():
    golden = read_golden(GOLDEN / "unit_normalise")
    with pytest.raises(CheckpointError, match=r"out\.clip\.dino_input is not replayed"):
        compare(golden, {})


def test_class_map_may_differ_at_ties_only():
    golden = read_golden(GOLDEN / "unit_slide_eva")
    computed = {key: golden[key] for key in golden.keys("out.")}
    pixels = computed["out.argmax"].numel()
    for changed, agree in ((pixels // 1000, True), (pixels // 1000 + 1, False)):
        classes = golden["out.argmax"].clone()
        classes.view(-1)[:changed] = (classes.view(-1)[:changed] + 1) % 19
        rows = compare(golden, computed | {"out.argmax": classes})
        assert all(row.ok for row in rows) == agree


@pytest.fixture
def command():
    app = typer.Typer()
    app.command()(parity_command)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_prints_a_line_for_each_tensor_and_the_verdict_last(command):
    result = command(GOLDEN / "model_eva_tiny")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert len(lines) == NAMES["model_eva_tiny"] + 1
    assert lines[0].split()[0] == "out.global"
    assert "(atol 5e-05 rtol 0.0005)" in lines[0]
    assert lines[-1] == "model_eva_tiny: parity, all 15 tensors agree"


def test_command_fails_with_1_if_a_tensor_differs(command, golden_copy):
    change(golden_copy, "out.y", 0.5)
    result = command(golden_copy)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "unit_mvfuser: no parity, 1 of 16 tensors differ"
    assert sum("DIFFERS" in line for line in result.stdout.splitlines()) == 1


def test_command_takes_a_path_with_a_suffix_and_can_be_quiet(command):
    result = command(GOLDEN / "unit_normalise.json", "--quiet")
    assert result.stdout == "unit_normalise: parity, all 7 tensors agree\n"


def remove_manifest(stem):
    stem.with_suffix(".json").unlink()


def remove_tensors(stem):
    stem.with_suffix(".safetensors").unlink()


def break_manifest(stem):
    stem.with_suffix(".json").write_text("{")


def rename(stem):
    manifest = json.loads(stem.with_suffix(".json").read_text())
    stem.with_suffix(".json").write_text(json.dumps(manifest | {"name": "unit_later"}))


def forget_a_size(stem):
    manifest = json.loads(stem.with_suffix(".json").read_text())
    del manifest["hyperparameters"]["d_state"]
    stem.with_suffix(".json").write_text(json.dumps(manifest))


def resize(stem):
    manifest = json.loads(stem.with_suffix(".json").read_text())
    manifest["hyperparameters"]["d_state"] = 8
    stem.with_suffix(".json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (remove_manifest, r"unit_mvfuser\.json: cannot be read"),
        (remove_tensors, r"unit_mvfuser\.safetensors: cannot be read"),
        (break_manifest, r"unit_mvfuser\.json: is no JSON"),
        (rename, r"golden unit_later: cannot be replayed by this version"),
        (forget_a_size, r"its manifest lacks 'd_state'"),
        (resize, r"its weights do not fit its sizes"),
    ],
)
def test_golden_that_cannot_be_used_is_refused_in_one_line(golden_copy, spoil, sentence):
    spoil(golden_copy)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        parity(golden_copy, slide=slide, starts=starts)
    assert "\n" not in str(caught.value)
