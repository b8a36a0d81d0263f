"""Rate and decay of every parameter, against the published optimizer's, recorded from its own constructor."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from mfuser_ros.checkpoints import rebuild
from mfuser_ros.checkpoints.golden import read_golden
from mfuser_ros.checkpoints.keymap import LAYOUTS, map_keys
from mfuser_ros.training.config import load_recipe
from mfuser_ros.training.optimizer import build_optimizer, rate_share

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "test" / "golden"
VARIANTS = [("eva", "eva02-l"), ("clip", "clip-l"), ("siglip", "siglip-l")]


@pytest.mark.parametrize(("variant", "preset"), VARIANTS)
@pytest.mark.parametrize("source", ["gta5", "synthia", "cityscapes"])
def test_groups_are_the_published_ones(variant: str, preset: str, source: str) -> None:
    lines = gzip.decompress((GOLDEN / f"optim_groups_{variant}.txt.gz").read_bytes()).decode().splitlines()
    published = {line.split("\t")[0]: line.split("\t")[1:] for line in lines if line and not line.startswith("#")}
    keys = map_keys(published, LAYOUTS[preset], source=variant)
    expected = {keys.renamed[name]: (float(rate), float(decay)) for name, (rate, decay) in published.items()
                if name in keys.renamed}  # fmt: skip  # the others are not there at all, such as random_text
    network = rebuild.mfuser(read_golden(GOLDEN / f"model_{variant}_tiny"))
    config = load_recipe(ROOT / "config" / "train" / f"{preset}_{source}.yaml").optimizer

    peaks, optimizer = build_optimizer(network, config, torch.device("cpu"))

    names = {id(parameter): name for name, parameter in network.named_parameters()}
    ours = {
        names[id(parameter)]: (peak, group["weight_decay"])
        for peak, group in zip(peaks, optimizer.param_groups, strict=True)
        for parameter in group["params"]
    }
    assert len(expected) > 200
    assert ours == expected
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert optimizer.defaults["eps"] == 1e-8
    assert {name for name, parameter in network.named_parameters() if parameter.requires_grad} == set(expected)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-4 * 1e-6),  # 1 - (1 - 0) (1 - 1e-6)
        (750, ((1e-4 - 1e-6) * (19250 / 20000) ** 0.9 + 1e-6) * (1 - 0.5 * (1 - 1e-6))),
        (1500, (1e-4 - 1e-6) * (18500 / 20000) ** 0.9 + 1e-6),
        (10000, (1e-4 - 1e-6) * 0.5**0.9 + 1e-6),
        (20000, 1e-6),
    ],
)
def test_published_rate(step: int, rate: float) -> None:
    config = load_recipe(ROOT / "config" / "train" / "eva02-l_gta5.yaml").optimizer
    assert config.rate * rate_share(step, step / 20000, config) == pytest.approx(rate, rel=1e-9)


def test_published_recipes_differ_in_towers_source_and_decay_alone() -> None:
    first = load_recipe(ROOT / "config" / "train" / "eva02-l_gta5.yaml")
    assert (first.steps, first.crop.size, first.batch, first.seed) == (20000, (512, 512), 2, 2023)
    for _, preset in VARIANTS:
        for source in ("gta5", "synthia", "cityscapes"):
            recipe = load_recipe(ROOT / "config" / "train" / f"{preset}_{source}.yaml")
            assert recipe.preset == preset
            assert [(part.dataset, part.split) for part in recipe.sources] == [(source, "train")]
            assert recipe.optimizer.weight_decay == (1e-4 if preset == "clip-l" else 1e-5)
            assert (recipe.losses, recipe.crop, recipe.steps) == (first.losses, first.crop, first.steps)
