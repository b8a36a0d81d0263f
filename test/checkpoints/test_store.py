"""Model files: what is saved comes back, and every way in which a file can be wrong has its sentence."""

import json

import pytest
import safetensors.torch
import torch
import yaml

from mfuser_ros.checkpoints import ModelCard, load_model, locate, save_model, store
from mfuser_ros.errors import CheckpointError
from mfuser_ros.network.config import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    SMALL,
    Architecture,
    EnhancerConfig,
    EvaText,
    FusionConfig,
    HeadConfig,
    PyramidNeck,
    TowerConfig,
    WindowInput,
)
from mfuser_ros.network.model import MFuser

VIT = {"img_size": 60, "embed_dim": 24, "depth": 4, "num_heads": 2}
TINY = Architecture(
    name="tiny",
    classes=2,
    vfm=TowerConfig(
        layout="dinov2", model="vit_large_patch14_dinov2", options=VIT, mean=IMAGENET_MEAN, std=IMAGENET_STD
    ),
    vlm=TowerConfig(
        layout="eva02",
        model="eva02_large_patch14_clip_336",
        options={**VIT, "num_classes": 28},
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    fusion=FusionConfig(stages=(0, 1, 2, 3), width=None),
    neck=PyramidNeck(taps=(0, 1, 2, 3)),
    text=EvaText(width=20, heads=2, layers=1, vocabulary=49408, contexts=2, tokens=4),
    text_width=28,
    enhancer=EnhancerConfig(width=32),
    head=HeadConfig(width=32, heads=4, pixel_layers=1, query_layers=1, norm_groups=8, pixel_hidden=16, query_hidden=16),
    input=WindowInput(crop=60, stride=40),
)


def card_of(architecture: Architecture, names=("road", "traffic light")) -> ModelCard:
    return ModelCard(
        name=architecture.name,
        architecture=architecture,
        vocabulary=names,
        threshold=0.4,
        temperature=1.5,
        licence="Apache-2.0",
        provenance="random weights of a test",
    )


@pytest.fixture(scope="module")
def network() -> MFuser:
    torch.manual_seed(0)
    return store.build(TINY, ("road", "traffic light")).eval()


@pytest.fixture
def saved(network, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_model(network, card_of(TINY), path)
    return path


def rewrite(path, **changes) -> None:
    """Change entries of the description beside the weights; None removes one."""
    file = path.with_suffix(".yaml")
    content = yaml.safe_load(file.read_text())
    for key, value in changes.items():
        content[key] = value
        if value is None:
            del content[key]
    file.write_text(yaml.safe_dump(content))


def replace_weights(path, tensors) -> None:
    safetensors.torch.save_file(tensors, path)
    rewrite(path, sha256=store.sha256(path))


@torch.no_grad()
def test_saved_network_comes_back_within_the_rounding_of_fp16(network, saved):
    picture = torch.rand(1, 3, 60, 60, generator=torch.Generator().manual_seed(0)) * 255

    loaded, file = load_model(saved)

    assert not loaded.training
    assert file.vocabulary == ("road", "traffic light")
    assert (file.threshold, file.temperature) == (0.4, 1.5)
    assert file.architecture == TINY
    for name, weight in network.state_dict().items():
        back = loaded.state_dict()[name]
        assert back.dtype == weight.dtype, name
        torch.testing.assert_close(back, weight, rtol=2**-10, atol=6e-8, msg=name)  # fp16: 11 bits, steps of 6e-8 at 0
    expected, given = network(picture).encoded.picture, loaded(picture).encoded.picture
    torch.testing.assert_close(given, expected, rtol=2e-2, atol=2e-2)  # eleven layers of fp16 rounding


def test_saving_what_was_loaded_gives_the_same_weights(saved, tmp_path):
    loaded, file = load_model(saved)
    again = save_model(loaded, card_of(TINY), tmp_path / "again.safetensors")
    assert again == file
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_saved_floats_are_fp16_and_nothing_else_lies_in_the_folder(saved):
    assert {file.name for file in saved.parent.iterdir()} == {"tiny.safetensors", "tiny.yaml"}
    tensors = safetensors.torch.load_file(saved)
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}


def test_name_is_looked_up_in_the_models_folder(saved, tmp_path, monkeypatch):
    models = tmp_path / "models"
    models.mkdir()
    for file in (saved, saved.with_suffix(".yaml")):
        (models / file.name.replace("tiny", "tiny_of_this_test")).write_bytes(file.read_bytes())
    monkeypatch.setattr(store.share, "find", lambda relative: tmp_path / relative)  # not the shipped models

    assert locate("tiny_of_this_test") == models / "tiny_of_this_test.safetensors"
    assert load_model("tiny_of_this_test")[1].architecture == TINY
    with pytest.raises(CheckpointError, match=r"huge: no such model in .*\(there: tiny_of_this_test\)"):
        locate("huge")


def missing_weights(path):
    path.unlink()


def missing_description(path):
    path.with_suffix(".yaml").unlink()


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def one_byte_changed(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def no_safetensors(path):
    path.write_bytes(b"x" * 500)
    rewrite(path, sha256=store.sha256(path))


def unknown_entry(path):
    rewrite(path, colour="red")


def missing_licence(path):
    rewrite(path, licence=None)


def no_yaml(path):
    path.with_suffix(".yaml").write_text("architecture: [")


def too_few_names(path):
    rewrite(path, vocabulary=["road"])


def unknown_tower(path):
    content = yaml.safe_load(path.with_suffix(".yaml").read_text())["architecture"]
    content["vfm"]["model"] = "no_such_tower"
    rewrite(path, architecture=content)


def too_long_a_name(path):
    rewrite(path, vocabulary=["road", "a very long name"])


def tensor_missing(path):
    tensors = safetensors.torch.load_file(path)
    del tensors["enhancer.gamma"]
    replace_weights(path, tensors)


def tensor_of_another_shape(path):
    tensors = safetensors.torch.load_file(path)
    replace_weights(path, tensors | {"enhancer.gamma": torch.zeros(5)})


def tensor_unknown(path):
    tensors = safetensors.torch.load_file(path)
    replace_weights(path, tensors | {"enhancer.delta": torch.zeros(5)})


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (missing_weights, r"tiny\.safetensors: no such file"),
        (missing_description, r"tiny\.yaml: cannot be read"),
        (truncated, r"tiny\.safetensors: SHA-256 is .* fetch both files again"),
        (one_byte_changed, r"tiny\.safetensors: SHA-256 is .* fetch both files again"),
        (no_safetensors, r"tiny\.safetensors: is no whole safetensors file"),
        (unknown_entry, r"tiny\.yaml: colour: Extra inputs"),
        (missing_licence, r"tiny\.yaml: licence: Field required"),
        (no_yaml, r"tiny\.yaml: is no YAML"),
        (too_few_names, r"tiny\.yaml: file: .*1 names for 2 classes"),
        (unknown_tower, r"tiny\.yaml: tower no_such_tower: timm cannot build it"),
        (too_long_a_name, r"tiny\.yaml: class 'a very long name': needs 6 tokens"),
        (tensor_missing, r"tiny\.safetensors: enhancer\.gamma is missing: .* another architecture than tiny"),
        (tensor_of_another_shape, r"enhancer\.gamma has shape \(5,\), tiny needs \(28,\)"),
        (tensor_unknown, r"enhancer\.delta is unknown"),
    ],
)
def test_file_that_cannot_be_used_is_refused_in_one_line(saved, spoil, sentence):
    spoil(saved)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)


def test_published_checkpoint_is_sent_to_the_converter():
    with pytest.raises(CheckpointError, match="mfuser convert"):
        load_model("mfuser-eva02-clip-vit-l-gta.pth")


def test_weights_of_another_preset_name_the_first_tensor_that_does_not_fit(saved):
    rewrite(saved, architecture=json.loads(SMALL.model_dump_json()), vocabulary=[str(index) for index in range(19)])
    with pytest.raises(
        CheckpointError, match=r"vfm\.net\.conv_stem\.weight is missing: .* another architecture than small"
    ):
        load_model(saved)


def test_weight_that_is_no_number_is_not_saved(network, tmp_path):
    broken = store.build(TINY, ("road", "traffic light"))
    with torch.no_grad():
        broken.enhancer.gamma[3] = 1e6  # beyond the largest number of fp16
    with pytest.raises(CheckpointError, match=r"enhancer\.gamma: holds values that are no numbers in fp16"):
        save_model(broken, card_of(TINY), tmp_path / "broken.safetensors")
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_model_in_place(network, saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.safetensors.torch, "save_file", full_disk)
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors: cannot be written .*No space left"):
        save_model(network, card_of(TINY), saved)
    assert saved.read_bytes() == before
    assert {file.name for file in saved.parent.iterdir()} == {"tiny.safetensors", "tiny.yaml"}


def test_card_of_another_architecture_is_not_saved(network, tmp_path):
    names = tuple(str(index) for index in range(19))
    with pytest.raises(CheckpointError, match="describes another architecture"):
        save_model(network, card_of(SMALL, names), tmp_path / "tiny.safetensors")


def test_folder_that_does_not_exist_is_named(network, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere/tiny\.safetensors: cannot be written"):
        save_model(network, card_of(TINY), tmp_path / "nowhere" / "tiny.safetensors")
