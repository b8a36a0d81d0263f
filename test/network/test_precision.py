"""Half precision without autocast: what stays float32, and that the classes stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mfuser_ros.checkpoints import rebuild
from mfuser_ros.checkpoints.golden import read_golden
from mfuser_ros.network.mask_decoder import assemble
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.mvfuser import MVFuser
from mfuser_ros.network.optimize import optimize
from mfuser_ros.network.precision import lower

GOLDEN = Path(__file__).parents[1] / "golden"
VARIANTS = ["eva", "clip", "siglip"]


def network(variant: str) -> MFuser:
    return optimize(rebuild.mfuser(read_golden(GOLDEN / f"model_{variant}_tiny")).requires_grad_(False))


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_lowered_but_for_scans_statistics_and_rotary_tables(variant):
    lowered = lower(network(variant), torch.bfloat16)

    kept = {name for name, value in lowered.state_dict().items() if value.dtype == torch.float32}
    fusers = {name for name, module in lowered.named_modules() if isinstance(module, MVFuser)}
    of_fusers = ("A_log", "D", "dt_proj.weight", "dt_proj.bias", "norm.weight")
    assert {f"{fuser}.{part}" for fuser in fusers for part in of_fusers} <= kept
    others = {name for name in kept if not any(name.startswith(f"{fuser}.") for fuser in fusers)}
    assert all(name.split(".")[0] in ("vfm", "vlm") and "weight" not in name for name in others)
    assert lowered.pixel_decoder.mask_feature.weight.dtype == torch.bfloat16
    for tower in lowered.towers:
        assert all(buffer.dtype != torch.bfloat16 for _, buffer in tower.named_buffers(recurse=False))


@pytest.mark.parametrize("variant", VARIANTS)
def test_kept_values_are_the_old_ones_not_rounded_copies(variant):
    before = {name: value.clone() for name, value in network(variant).state_dict().items()}

    after = lower(network(variant), torch.bfloat16).state_dict()

    rounded = 0
    for name, value in after.items():
        if value.dtype == torch.float32:
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)
            rounded += not torch.equal(value, value.bfloat16().float())
    assert rounded  # there were values that bfloat16 cannot hold


@pytest.mark.parametrize("variant", VARIANTS)
def test_labels_agree_with_float32(variant):
    whole, lowered = network(variant), lower(network(variant), torch.bfloat16)
    side = whole.architecture.vlm.options["img_size"]
    pictures = 255 * torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        expected, found = assemble(whole.predict(pictures)), assemble(lowered.predict(pictures))

    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) < 0.05 * scale
    assert float((found.argmax(1) == expected.argmax(1)).float().mean()) > 0.95
