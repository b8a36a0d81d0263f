"""Exact rewrites, on the goldens' networks in float64."""

import copy
from pathlib import Path

import pytest
import torch

import mfuser_ros
from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import ModelCard, load_model, rebuild, save_model
from mfuser_ros.checkpoints.golden import read_golden
from mfuser_ros.network.config import SMALL
from mfuser_ros.network.mask_decoder import assemble
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.mvfuser import MVFuser
from mfuser_ros.network.optimize import optimize
from mfuser_ros.network.text import TextEncoder

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(("name", "side"), [("eva", 60), ("clip", 64), ("siglip", 64)])
@torch.no_grad()
def test_optimized_network_predicts_the_same(name, side):
    network = rebuild.mfuser(read_golden(GOLDEN / f"model_{name}_tiny")).double()
    before = copy.deepcopy(network)
    picture = torch.rand(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 255

    optimized = optimize(network)

    assert optimized is network
    ours, theirs = optimized.predict(picture), before.predict(picture)
    # sine positions are of float32 in both; only the order of sums differs
    torch.testing.assert_close(ours.mask_logits, theirs.mask_logits, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(ours.class_logits, theirs.class_logits, atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_optimized_levels_come_at_the_width_of_the_decoder():
    network = rebuild.mfuser(read_golden(GOLDEN / "model_clip_tiny"))
    picture = torch.rand(1, 3, 64, 64) * 255
    assert [level.shape[1] for level in network.encode(picture).pyramid] == [44, 44, 44, 44]

    optimize(network)

    assert [level.shape[1] for level in network.encode(picture).pyramid] == [48, 48, 44, 44]
    assert not [part for part in network.neck.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert not any(weight.requires_grad for weight in network.neck.parameters())


def test_only_the_scales_of_fusers_change_in_a_network_without_a_pyramid():
    network = MFuser(SMALL)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    scaled = {name.removesuffix(".scale") for name in before if name.endswith("mvfuser.scale")}
    assert len(scaled) == 4 + 1  # fused stages, and the layer of the enhancer

    optimize(network)

    after = network.state_dict()
    assert set(before) - set(after) == {f"{fuser}.scale" for fuser in scaled}
    folded = {f"{fuser}.norm.weight" for fuser in scaled}
    for name, tensor in after.items():
        expected = before[name]
        if name in folded:
            expected = expected * before[name.replace("norm.weight", "scale")]
        assert torch.equal(tensor, expected), name


@torch.no_grad()
def test_fuser_with_its_scale_folded_gives_the_same_numbers():
    torch.manual_seed(0)
    fuser = MVFuser(32, initial_scale=0.001).double().eval()
    tokens = torch.randn(2, 20, 32, dtype=torch.float64)
    before = fuser(tokens)

    fuser.fold_scale()
    fuser.fold_scale()  # once is enough

    torch.testing.assert_close(fuser(tokens), before, rtol=1e-13, atol=1e-18)


@torch.no_grad()
def test_folded_scale_loses_nothing_in_half_precision():
    """A scale of 0.001, folded into the output map, would leave most of its weights subnormal in fp16."""
    torch.manual_seed(0)
    fuser = MVFuser(64, initial_scale=0.001).eval()
    tokens = torch.randn(2, 50, 64)
    exact = copy.deepcopy(fuser).double()(tokens.double())

    def error(network: MVFuser) -> float:
        with torch.autocast("cpu", torch.float16):
            return float((network(tokens).double() - exact).norm() / exact.norm())

    plain = error(fuser)
    fuser.fold_scale()
    assert plain < 2e-3
    assert error(fuser) < 1.1 * plain


@pytest.mark.parametrize("name", ["eva", "siglip"])
@torch.no_grad()
def test_text_tower_gives_place_to_its_embeddings(name):
    golden = read_golden(GOLDEN / f"model_{name}_tiny")
    network = rebuild.mfuser(golden)
    before = network.text()

    optimize(network)

    assert torch.equal(network.text(), before)
    assert not list(network.text.parameters())
    torch.testing.assert_close(network.text(), golden["out.text_raw"].reshape(before.shape), atol=5e-5, rtol=5e-4)


def test_text_tower_without_token_ids_stays():
    network = MFuser(rebuild.architecture(read_golden(GOLDEN / "model_eva_tiny")))
    assert isinstance(optimize(network).text, TextEncoder)


@torch.no_grad()
def test_loaded_model_is_optimized_and_labels_as_the_plain_network_does(tmp_path):
    golden = read_golden(GOLDEN / "model_siglip_tiny")
    network = rebuild.mfuser(golden)
    card = ModelCard(
        name="tiny",
        architecture=network.architecture,
        vocabulary=vocabulary.load().names,
        token_ids=golden["in.texts"].tolist(),
        threshold=0.0,
        temperature=1.0,
        licence="none",
        provenance="golden",
    )
    save_model(network, card, tmp_path / "tiny.safetensors")
    picture = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()

    labels = mfuser_ros.load(tmp_path / "tiny.safetensors", device="cpu")(picture).labels

    plain = load_model(tmp_path / "tiny.safetensors")[0]
    scores = assemble(plain.predict(torch.from_numpy(picture).permute(2, 0, 1)[None].float()))
    enlarged = torch.nn.functional.interpolate(scores, (64, 64), mode="bilinear")
    assert labels.shape == (64, 64)
    assert (labels != enlarged.argmax(1)[0].numpy()).mean() < 0.001  # ties
