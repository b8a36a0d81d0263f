"""Every key of the full published lists through the whole conversion, at an eighth of the width."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import load_model
from mfuser_ros.checkpoints.convert import convert
from mfuser_ros.checkpoints.keymap import LAYOUTS, map_keys
from mfuser_ros.network.config import PRESETS, Architecture, TowerConfig
from mfuser_ros.network.model import MFuser

GOLDEN = Path(__file__).parents[1] / "golden"
DIVISOR = 8  # of widths


def narrow_tower(full: TowerConfig) -> TowerConfig:
    options = {**full.options, "embed_dim": 1024 // DIVISOR, "num_heads": 2}
    if options.get("num_classes"):
        options["num_classes"] //= DIVISOR
    if full.layout == "eva02":
        options["mlp_ratio"] = (2730 // DIVISOR + 0.5) / (1024 // DIVISOR)  # timm rounds the product down
    return full.model_copy(update={"options": options})


def narrow(preset: Architecture) -> Architecture:
    """A preset with every layer of the full one, narrower; the vocabulary stays large enough for real class names."""
    text = {"width": preset.text.width // DIVISOR, "heads": 2}
    if preset.text.kind == "siglip":
        text |= {"hidden": 4096 // DIVISOR, "vocabulary": 64}
    head = {"width": 256 // DIVISOR, "heads": 2, "pixel_hidden": 64, "query_hidden": 64, "norm_groups": 4}
    return preset.model_copy(
        update={
            "vfm": narrow_tower(preset.vfm),
            "vlm": narrow_tower(preset.vlm),
            "text": preset.text.model_copy(update=text),
            "text_width": preset.text_width // DIVISOR,
            "enhancer": preset.enhancer.model_copy(update={"width": 256 // DIVISOR}),
            "head": preset.head.model_copy(update=head),
        }
    )


def published(preset: str) -> dict[str, torch.Tensor]:
    """Random weights by all published names of a variant, in the shapes of the narrow network."""
    lines = gzip.decompress((GOLDEN / f"keys_{preset}_full.txt.gz").read_bytes()).decode().splitlines()
    dimensions = {}
    for line in lines:
        if not line.startswith("#"):
            name, shape, _, _ = line.split("\t")
            dimensions[name] = 0 if shape == "scalar" else shape.count("x") + 1
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in MFuser(PRESETS[preset]).state_dict().items()}
    keys = map_keys(dimensions, LAYOUTS[preset], source=preset)
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn([2] * dimensions[name], generator=generator) for name in keys.dropped}
    for name, ours in keys.renamed.items():
        our, _, mark = ours.partition("@")
        shape = list(shapes[our])
        if mark == "T":
            shape.reverse()
        elif mark:  # one of three that are stacked
            shape[0] //= 3
        weights[name] = torch.randn(shape[len(shape) - dimensions[name] :], generator=generator) * 0.05
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(20000)
    return {name: weights[name] for name in dimensions}


@pytest.mark.parametrize(("preset", "count"), [("eva02-l", 1708), ("clip-l", 1539), ("siglip-l", 1884)])
def test_every_published_weight_arrives_in_the_written_model(preset, count, monkeypatch, tmp_path):
    monkeypatch.setitem(PRESETS, preset, narrow(PRESETS[preset]))
    weights = published(preset)
    assert len(weights) == count
    torch.save({"meta": {"CLASSES": ("road",)}, "state_dict": weights}, tmp_path / "published.pth")
    tokens = None
    if preset == "siglip-l":
        tokens = tmp_path / "ids.json"
        tokens.write_text(json.dumps({name: [index, 1, 1, 1, 1] for index, name in enumerate(vocabulary.load().names)}))

    made = convert(tmp_path / "published.pth", tmp_path / "ours.safetensors", tokens=tokens)

    assert made.preset == preset
    assert made.tensors + len(made.dropped) == count
    network, _ = load_model(tmp_path / "ours.safetensors")
    ours = network.state_dict()
    kept = {name: tensor.half().to(tensor.dtype) for name, tensor in weights.items() if name not in made.dropped}
    reached = set()
    for name, target in map_keys(kept, LAYOUTS[preset], source=preset).renamed.items():
        our, _, mark = target.partition("@")
        reached.add(our)
        found = ours[our]
        if mark == "T":
            found = found.T
        elif mark:
            found = found.chunk(3)["qkv".index(mark)]
        assert torch.equal(found.reshape(kept[name].shape), kept[name]), name
    assert reached == set(ours)
