"""Files of the original encoders: renamed, resized as published, and what is refused."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import load_model, rebuild
from mfuser_ros.checkpoints.golden import read_golden
from mfuser_ros.checkpoints.originals import read_original, resize_offsets, resize_positions, untrained
from mfuser_ros.commands.convert import convert
from mfuser_ros.errors import CheckpointError, ConfigurationError
from mfuser_ros.network import torchvision_mend
from mfuser_ros.network.config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PRESETS,
    Architecture,
    LinkedText,
    TowerConfig,
    merged,
)
from mfuser_ros.network.text import TextEncoder

torchvision_mend.mend()

import open_clip  # noqa: E402  # imports torchvision, hence after the mend
import timm  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden"


def test_positions_of_no_square_grid_stay_as_they_are():
    odd = torch.zeros(1, 1 + 12, 4)
    assert resize_positions(odd, 17, "bicubic", class_token=True) is odd


@torch.no_grad()
def randomised(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    for value in network.parameters():
        value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return network.eval().state_dict()


def dino_file(path: Path, *, width: int = 24, patch: int = 14) -> torch.nn.Module:
    """Write a small DINOv2 of a 5x5 grid as its authors would."""
    options = {"img_size": 5 * patch, "patch_size": patch, "embed_dim": width, "num_heads": 2, "depth": 5}
    network = timm.create_model("vit_large_patch14_dinov2", **options)
    torch.save({**randomised(network), "mask_token": torch.zeros(1, width)}, path)
    return network


def clip_model() -> torch.nn.Module:
    """A small CLIP of open_clip at the sizes of the golden, patches of 14 pixels, a 3x3 grid, 77 text positions."""
    return open_clip.CLIP(
        embed_dim=28,
        vision_cfg=open_clip.CLIPVisionCfg(layers=5, width=24, head_width=12, patch_size=14, image_size=42),
        text_cfg=open_clip.CLIPTextCfg(context_length=77, vocab_size=64, width=20, heads=2, layers=2),
        quick_gelu=True,
    )


@pytest.fixture(scope="module")
def clip_architecture():
    return rebuild.architecture(read_golden(GOLDEN / "model_clip_tiny"))


@torch.no_grad()
def test_clip_of_open_clip_becomes_the_towers_of_an_untrained_network(clip_architecture, tmp_path):
    clip = clip_model()
    torch.save(randomised(clip), tmp_path / "clip.pt")
    dino_file(tmp_path / "dino.pth", width=20)

    start = untrained(tmp_path / "clip.pt", tmp_path / "dino.pth", architecture=clip_architecture)

    tower = start.network.vlm.eval()
    assert set(start.dropped) >= {"logit_scale", "mask_token"}
    # bring the reference to the size that the import chose; the tower adds the class embedding twice
    positions = tower.net.pos_embed[0].clone()
    positions[0] += tower.net.cls_token[0, 0]
    visual = clip.visual
    visual.positional_embedding = torch.nn.Parameter(positions)
    visual.conv1 = torch.nn.Conv2d(3, 24, 16, 16, bias=False)
    visual.conv1.weight.copy_(tower.net.patch_embed.proj.weight)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
    state = tower.embed(picture)
    for index in range(5):
        state = tower.stage(index, state)
    ours = tower.to_text_space(tower.final_norm(state))[:, 0]
    torch.testing.assert_close(ours, visual(tower.normalise(picture)), atol=1e-4, rtol=1e-4)
    text = start.network.text
    torch.testing.assert_close(text.positional_embedding, clip.positional_embedding[:10], atol=0, rtol=0)
    assert text.contexts.std() > 0.5  # still as random as they are published to start


@torch.no_grad()
def test_dinov2_keeps_its_numbers_where_nothing_is_resized(tmp_path, clip_architecture):
    torch.save(randomised(clip_model()), tmp_path / "clip.pt")
    dino = dino_file(tmp_path / "dino.pth", width=20, patch=16)
    tiny = {"img_size": 80, "patch_size": 16, "embed_dim": 20, "num_heads": 2, "depth": 5}
    vfm = TowerConfig(
        layout="dinov2", model="vit_large_patch14_dinov2", options=tiny, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    clip = clip_architecture.vlm.model_copy(update={"options": {**clip_architecture.vlm.options, "img_size": 80}})
    same = clip_architecture.model_copy(update={"vfm": vfm, "vlm": clip})

    start = untrained(tmp_path / "clip.pt", tmp_path / "dino.pth", architecture=same)

    for name, tensor in dino.state_dict().items():
        torch.testing.assert_close(start.network.vfm.net.state_dict()[name], tensor, atol=0, rtol=0)


def test_command_writes_an_untrained_model_that_loads(tmp_path, monkeypatch):
    golden = read_golden(GOLDEN / "model_siglip_tiny")
    monkeypatch.setitem(PRESETS, "siglip-l", rebuild.architecture(golden))
    siglip_file(golden, tmp_path / "siglip.safetensors")
    dino_file(tmp_path / "dino.pth")
    ids = dict(zip(vocabulary.load().names, golden["in.texts"].tolist(), strict=True))
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    app = typer.Typer()
    app.command()(convert)
    files = [tmp_path / "siglip.safetensors", tmp_path / "start.safetensors", "--vfm", tmp_path / "dino.pth"]

    result = CliRunner().invoke(app, [str(part) for part in (*files, "--tokens", tmp_path / "ids.json")])

    assert result.exit_code == 0, result.output
    network, file = load_model(tmp_path / "start.safetensors")
    assert file.provenance.startswith("untrained: towers")
    assert file.architecture.score_bias == pytest.approx(-1.7)
    assert network.text.ids.tolist() == golden["in.texts"].tolist()
    refused = CliRunner().invoke(app, [str(part) for part in (*files, "--preset", "siglip-l")])
    assert isinstance(refused.exception, ConfigurationError)


def same_weights(
    network: torch.nn.Module, weights: dict[str, torch.Tensor], prefix: str, names: dict[str, str]
) -> None:
    for ours, theirs in names.items():
        torch.testing.assert_close(network.state_dict()[prefix + ours], weights[theirs], atol=0, rtol=0)


BLOCK = {
    "net.blocks.4.mlp.fc1.weight": "visual.transformer.resblocks.4.mlp.c_fc.weight",
    "net.norm_pre.bias": "visual.ln_pre.bias",
}


def test_a_tower_alone_is_filled_and_the_other_file_is_not_opened(tmp_path, clip_architecture):
    weights = randomised(clip_model())
    torch.save(weights, tmp_path / "clip.pt")
    alone = changed_to(clip_architecture, towers="vlm", fusion={"vfm_bridge": False, "kind": "none"})

    start = untrained(tmp_path / "clip.pt", tmp_path / "absent.pth", architecture=alone)

    same_weights(start.network, weights, "vlm.", BLOCK)
    same_weights(start.network, weights, "text.", {"token_embedding.weight": "token_embedding.weight"})
    assert not any(name.startswith("vfm.") for name in start.network.state_dict())


def test_vfm_alone_takes_the_words_of_the_vlm_and_leaves_out_its_eyes(tmp_path, clip_architecture):
    weights = randomised(clip_model())
    torch.save(weights, tmp_path / "clip.pt")
    dino = dino_file(tmp_path / "dino.pth", width=20)
    alone = changed_to(clip_architecture, towers="vfm", fusion={"vfm_bridge": False})

    start = untrained(tmp_path / "clip.pt", tmp_path / "dino.pth", architecture=alone)

    same_weights(start.network, dino.state_dict(), "vfm.net.", {"blocks.4.ls1.gamma": "blocks.4.ls1.gamma"})
    same_weights(start.network, weights, "text.", {"ln_final.bias": "ln_final.bias"})
    assert "visual tower" in start.dropped["visual.ln_pre.bias"]


def test_rein_needs_the_file_of_its_vfm_alone(tmp_path, clip_architecture):
    dino = dino_file(tmp_path / "dino.pth", width=20)
    rein = changed_to(
        clip_architecture.model_copy(update={"text": LinkedText()}), towers="vfm",
        fusion={"kind": "rein", "vfm_bridge": False}, enhancer={"kind": "none"}, head={"text_attention": False},
    )  # fmt: skip

    start = untrained(tmp_path / "absent.pt", tmp_path / "dino.pth", architecture=rein)

    same_weights(start.network, dino.state_dict(), "vfm.net.", {"norm.weight": "norm.weight"})


def test_a_vlm_in_the_place_of_the_vfm_gives_its_visual_tower(tmp_path, clip_architecture):
    torch.manual_seed(0)
    words, eyes = randomised(clip_model()), {name: 2 * value for name, value in randomised(clip_model()).items()}
    torch.save(words, tmp_path / "clip.pt")
    torch.save(eyes, tmp_path / "eyes.pt")
    pair = changed_to(clip_architecture, vfm=clip_architecture.vlm.model_dump(), fusion={"vfm_bridge": False})

    start = untrained(tmp_path / "clip.pt", tmp_path / "eyes.pt", architecture=pair)

    same_weights(start.network, words, "vlm.", BLOCK)
    same_weights(start.network, eyes, "vfm.", BLOCK)
    same_weights(start.network, words, "text.", {"ln_final.bias": "ln_final.bias"})
    assert "text tower" in start.dropped["ln_final.bias"]


@torch.no_grad()
@pytest.mark.parametrize(
    ("layout", "model"), [("dinov2", "vit_large_patch16_224"), ("beit", "beitv2_large_patch16_224")]
)
def test_other_vfm_of_timm_comes_from_its_own_file(layout, model, tmp_path, clip_architecture):
    weights = randomised(clip_model())
    torch.save(weights, tmp_path / "clip.pt")
    side = clip_architecture.vlm.options["img_size"]
    sizes = {"img_size": side, "embed_dim": 20, "num_heads": 2, "depth": 5, "patch_size": 16}
    theirs = timm.create_model(model, **sizes)
    save_file(randomised(theirs), tmp_path / "other.safetensors")
    vfm = {"layout": layout, "model": model, "options": sizes, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}

    start = untrained(
        tmp_path / "clip.pt", tmp_path / "other.safetensors", architecture=changed_to(clip_architecture, vfm=vfm)
    )

    tower = start.network.vfm.eval()
    assert start.dropped["head.weight"] == "classifier of its own training"
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 255
    state = tower.embed(picture)
    for index in range(5):
        state = tower.stage(index, state)
    expected = theirs.fc_norm(theirs.forward_features(tower.normalise(picture)))
    torch.testing.assert_close(tower.final_norm(state), expected, atol=1e-4, rtol=1e-4)


def test_biases_of_offsets_grow_around_the_middle_and_the_class_token_keeps_its_own():
    # grids of 2 and 4 places have 3x3 and 7x7 offsets; a bias that is the row of the offset
    rows = torch.arange(-1.0, 2).repeat_interleave(3)
    table = torch.cat([torch.stack([rows, torch.ones(9)], 1), torch.tensor([[7.0, 8], [9, 10], [11, 12]])])

    larger = resize_offsets(table, 49 + 3)

    grid = larger[:-3, 0].view(7, 7)
    assert grid[3, 3] == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(grid, -grid.flip(0))
    assert (grid.diff(dim=0) > 0).all()
    torch.testing.assert_close(larger[:-3, 1], torch.ones(49))
    torch.testing.assert_close(larger[-3:], table[-3:], atol=0, rtol=0)


def changed_to(architecture: Architecture, **changes) -> Architecture:
    return Architecture.model_validate(merged(architecture.model_dump(), changes))


class Archive(torch.nn.Module):
    """OpenAI's file: a TorchScript archive of half precision."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in weights.items():
            *folders, leaf = name.split(".")
            module: torch.nn.Module = self
            for folder in folders:
                if not hasattr(module, folder):
                    module.add_module(folder, torch.nn.Module())
                module = getattr(module, folder)
            module.register_buffer(leaf, tensor.half())
        self.register_buffer("input_resolution", torch.tensor(336))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_torchscript_archive_of_half_precision_is_read(tmp_path, clip_architecture):
    weights = randomised(clip_model())
    torch.jit.script(Archive(weights)).save(tmp_path / "clip.pt")
    dino_file(tmp_path / "dino.pth", width=20)

    start = untrained(tmp_path / "clip.pt", tmp_path / "dino.pth", architecture=clip_architecture)

    assert start.dropped["input_resolution"] == "a size, not a weight"
    ours = start.network.vlm.net.blocks[3].mlp.fc1.weight
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, weights["visual.transformer.resblocks.3.mlp.c_fc.weight"].half().float())


def siglip_file(golden, path: Path, **changes) -> None:
    """Write the golden's encoder as its authors would, with longer text positions."""
    weights = {}
    for name, tensor in golden.weights.items():
        if name.startswith("text_encoder."):
            weights["text_model." + name.removeprefix("text_encoder.")] = tensor
        elif name.startswith("backbone.") and not name.startswith(
            ("backbone.dino", "backbone.adapter", "backbone.fpn")
        ):
            weights["vision_model." + name.removeprefix("backbone.")] = tensor
    key = "text_model.embeddings.position_embedding.weight"
    weights[key] = torch.cat([weights[key], torch.zeros(54, 24)])
    scale = {"logit_scale": torch.tensor([2.3]), "logit_bias": torch.tensor([-1.7])}
    save_file({**weights, **scale, **changes}, path)


@torch.no_grad()
def test_siglip_brings_scale_and_bias_of_the_score_map(tmp_path):
    golden = read_golden(GOLDEN / "model_siglip_tiny")
    siglip_file(golden, tmp_path / "siglip.safetensors")
    dino_file(tmp_path / "dino.pth")

    start = untrained(
        tmp_path / "siglip.safetensors",
        tmp_path / "dino.pth",
        architecture=rebuild.architecture(golden),
        token_ids=golden["in.texts"].tolist(),
    )

    assert start.network.architecture.score_scale == pytest.approx(9.974182, rel=1e-6)  # exp(2.3)
    assert start.network.architecture.score_bias == pytest.approx(-1.7)
    whole = rebuild.mfuser(golden)
    for name, tensor in whole.state_dict().items():
        if name.startswith(("vlm.", "text.")) and name != "text.contexts":
            torch.testing.assert_close(start.network.state_dict()[name], tensor, atol=0, rtol=0)


@torch.no_grad()
def test_eva02_file_becomes_the_towers(tmp_path):
    golden = read_golden(GOLDEN / "model_eva_tiny")
    theirs = {"logit_scale": torch.tensor(4.6)}
    for name, tensor in golden.weights.items():
        if name.startswith("text_encoder."):
            theirs["text." + name.removeprefix("text_encoder.")] = tensor
        elif name.startswith("backbone.") and not name.startswith(
            ("backbone.dino", "backbone.adapter", "backbone.fpn")
        ):
            theirs["visual." + name.removeprefix("backbone.")] = tensor
    torch.save(theirs, tmp_path / "eva.pt")
    dino_file(tmp_path / "dino.pth")

    start = untrained(tmp_path / "eva.pt", tmp_path / "dino.pth", architecture=rebuild.architecture(golden))

    whole = rebuild.mfuser(golden)
    for name, tensor in whole.state_dict().items():
        if name.startswith(("vlm.", "text.")) and name != "text.contexts":
            torch.testing.assert_close(start.network.state_dict()[name], tensor, atol=0, rtol=0)
    assert start.dropped["visual.rope.freqs_cos"] == "rotary table, computed from the grid"


def open_clip_file(tower: torch.nn.Module, text: torch.nn.Module, path: Path) -> None:
    """Write what open_clip does for a CLIP whose picture tower is timm's."""
    weights = {f"visual.trunk.{name}": tensor for name, tensor in randomised(tower).items()}
    weights |= {f"text.{name}": tensor for name, tensor in randomised(text).items() if name != "attn_mask"}
    save_file({**weights, "logit_scale": torch.tensor(2.3), "logit_bias": torch.tensor(-1.7)}, path)


@torch.no_grad()
def test_eva02_of_open_clip_gives_what_timm_and_open_clip_give(tmp_path):
    architecture = rebuild.architecture(read_golden(GOLDEN / "model_eva_tiny"))
    tower = timm.create_model(architecture.vlm.model, **architecture.vlm.options)
    text = open_clip.transformer.TextTransformer(
        context_length=77, vocab_size=64, width=20, heads=2, layers=2, output_dim=28
    )
    open_clip_file(tower, text, tmp_path / "eva.safetensors")
    weights = load_file(tmp_path / "eva.safetensors")
    del weights["logit_bias"]  # SigLIP's
    save_file(weights, tmp_path / "eva.safetensors")
    dino_file(tmp_path / "dino.pth")

    start = untrained(tmp_path / "eva.safetensors", tmp_path / "dino.pth", architecture=architecture)

    assert start.dropped["logit_scale"] == "temperature of its own training"
    ours = start.network.eval()
    picture = torch.rand(2, 3, 60, 60, generator=torch.Generator().manual_seed(1)) * 255
    state = ours.vlm.embed(picture)
    for index in range(5):
        state = ours.vlm.stage(index, state)
    embedded = ours.vlm.to_text_space(ours.vlm.final_norm(state))[:, 0]
    torch.testing.assert_close(embedded, tower(ours.vlm.normalise(picture)), atol=1e-4, rtol=1e-4)
    ids = torch.tensor([[62, 11, 63, 0, 0], [62, 12, 13, 14, 63]])
    expected = text(torch.nn.functional.pad(ids, (0, 72)))  # it reads 77
    torch.testing.assert_close(without_contexts(ours.text, ids), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_siglip_of_open_clip_gives_what_timm_and_open_clip_give(tmp_path):
    architecture = rebuild.architecture(read_golden(GOLDEN / "model_siglip_tiny"))
    tower = timm.create_model(architecture.vlm.model, **architecture.vlm.options)
    text = open_clip.transformer.TextTransformer(
        context_length=64, vocab_size=64, width=24, heads=2, layers=2, output_dim=24, no_causal_mask=True,
        mlp_ratio=architecture.text.hidden / 24, proj_bias=True, pool_type="last",
        act_layer=partial(torch.nn.GELU, approximate="tanh"), norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    open_clip_file(tower, text, tmp_path / "siglip.safetensors")
    dino_file(tmp_path / "dino.pth")

    start = untrained(tmp_path / "siglip.safetensors", tmp_path / "dino.pth", architecture=architecture)

    assert start.network.architecture.score_bias == pytest.approx(-1.7)
    ours = start.network.eval()
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
    state = ours.vlm.embed(picture)
    for index in range(5):
        state = ours.vlm.stage(index, state)
    embedded = ours.vlm.to_text_space(ours.vlm.final_norm(state))[:, 0]
    torch.testing.assert_close(embedded, tower(ours.vlm.normalise(picture)), atol=1e-4, rtol=1e-4)
    ids = torch.tensor([[5, 11, 1, 1, 1, 1, 1, 1, 1, 1], [7, 12, 13, 14, 1, 1, 1, 1, 1, 1]])
    text.positional_embedding = torch.nn.Parameter(text.positional_embedding[:10])
    text.context_length = 10
    torch.testing.assert_close(without_contexts(ours.text, ids), text(ids), atol=1e-4, rtol=1e-4)


def without_contexts(tower: TextEncoder, ids: torch.Tensor) -> torch.Tensor:
    """Embeddings of ids in a text tower as it was before contexts were learned."""
    x = tower.token_embedding(ids) + tower.positional_embedding[: ids.shape[1]]
    x = tower.ln_final(tower.transformer(x))
    places = torch.nn.functional.pad(x, (0, 0, tower.config.contexts, 0))  # it looks behind the contexts
    return tower.read(places, ids)


def wrong_vlm(folder, weights):
    torch.save({"conv1.weight": torch.zeros(1)}, folder / "clip.pt")


def unknown(folder, weights):
    torch.save({**weights, "visual.extra.weight": torch.zeros(1)}, folder / "clip.pt")


def stray(folder, weights):
    torch.save({**weights, "decoder": torch.zeros(1)}, folder / "clip.pt")


def missing(folder, weights):
    torch.save({name: tensor for name, tensor in weights.items() if name != "visual.ln_post.bias"}, folder / "clip.pt")


def other_width(folder, weights):
    dino_file(folder / "dino.pth", width=24)


def registers(folder, weights):
    content = torch.load(folder / "dino.pth")
    torch.save({**content, "register_tokens": torch.zeros(1, 4, 20)}, folder / "dino.pth")


def cut_archive(folder, weights):
    torch.jit.script(Archive(weights)).save(folder / "clip.pt")
    content = (folder / "clip.pt").read_bytes()
    (folder / "clip.pt").write_bytes(content.replace(b"torch_save_version", b"x").replace(b"Module", b"Nodule"))


def absent(folder, weights):
    (folder / "dino.pth").unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (wrong_vlm, r"clip\.pt: is neither EVA02-CLIP nor CLIP nor SigLIP"),
        (unknown, r"clip\.pt: backbone\.extra\.weight is no weight of this preset"),
        (stray, r"clip\.pt: decoder is no weight of the encoder of clip-l"),
        (missing, r"clip\.pt: the weight that we call vlm\.net\.norm\.bias is missing"),
        (other_width, r"dino\.pth: backbone\.dinov2\.\S+ has shape"),
        (registers, r"dino\.pth: backbone\.dinov2\.register_tokens is no weight of"),
        (absent, r"dino\.pth: cannot be read"),
    ],
)
def test_file_that_is_not_the_encoder_is_refused_in_one_line(tmp_path, clip_architecture, spoil, sentence):
    weights = randomised(clip_model())
    torch.save(weights, tmp_path / "clip.pt")
    dino_file(tmp_path / "dino.pth", width=20)
    spoil(tmp_path, weights)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        untrained(tmp_path / "clip.pt", tmp_path / "dino.pth", architecture=clip_architecture)
    assert "\n" not in str(caught.value)


def test_broken_torchscript_archive_is_refused(tmp_path):
    cut_archive(tmp_path, randomised(clip_model()))
    with pytest.raises(CheckpointError, match=r"clip\.pt: is no whole TorchScript archive"):
        read_original(tmp_path / "clip.pt")
