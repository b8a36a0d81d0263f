"""Blocks and whole networks in fused form give what their plain forms give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mfuser_ros.checkpoints import rebuild
from mfuser_ros.checkpoints.golden import read_golden
from mfuser_ros.network import fused, torchvision_mend
from mfuser_ros.network.config import SMALL
from mfuser_ros.network.mask_decoder import assemble
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.mvfuser import MVFuser
from mfuser_ros.network.optimize import optimize

torchvision_mend.mend()

from timm.layers import LayerScale  # noqa: E402  # imports torchvision, hence after the mend
from timm.models.eva import EvaBlock  # noqa: E402
from timm.models.vision_transformer import Block  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interpreter, in lanes that are masked


def randomised(module: nn.Module, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.to(device).eval().requires_grad_(False)


class _OnGpu:
    """What `fits` looks at, of a tensor that claims to lie on a GPU."""

    is_cuda = True

    def __init__(self, tensor: torch.Tensor) -> None:
        self.dtype = tensor.dtype


@pytest.fixture(params=["kernels", "plain"])
def device(request, monkeypatch):
    """Where fused forms run: with the kernels (on a CPU in their interpreter), and without."""
    if request.param == "plain":
        with fused.plain():
            yield torch.device("cpu")
        return
    found = request.getfixturevalue("kernel_device")
    if found.type == "cpu":
        fits = fused.fits
        monkeypatch.setattr(fused, "fits", lambda x, side=1: fits(_OnGpu(x), side))
    yield found


@pytest.mark.parametrize("options", [{}, {"init_values": 1.0}, {"qkv_bias": False}])
def test_block_of_a_vision_transformer(device, options):
    from mfuser_ros.network.fused.blocks import FusedBlock, can_fuse

    block = randomised(Block(32, 4, **{"qkv_bias": True, **options}), device)
    x = torch.randn(2, 10, 32, device=device)
    assert can_fuse(block)
    assert isinstance(block.ls1, LayerScale) == ("init_values" in options)

    with torch.no_grad():
        expected, found = block(x), FusedBlock(block)(x)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True, "mlp_ratio": 2.67},
        {"qkv_fused": True, "init_values": 0.5},
    ],
)
def test_block_of_eva_with_rotation(device, options):
    from mfuser_ros.network.fused.blocks import FusedBlock, can_fuse

    block = randomised(EvaBlock(32, 4, qkv_bias=True, **options), device)
    angles = torch.randn(9, 4, device=device).repeat_interleave(2, -1)
    table = torch.cat([angles.sin(), angles.cos()], -1)
    x = torch.randn(2, 10, 32, device=device)
    assert can_fuse(block)

    with torch.no_grad():
        expected, found = block(x, rope=table), FusedBlock(block)(x, rope=table)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"qk_norm": True}, {"mlp_layer": nn.Identity}])
def test_block_with_other_parts_is_left_alone(options):
    from mfuser_ros.network.fused.blocks import can_fuse

    if "mlp_layer" in options:
        block = Block(32, 4)
        block.mlp = nn.Identity()
    else:
        block = Block(32, 4, **options)

    assert not can_fuse(block)


@pytest.mark.parametrize("length", [1, 21, 70])
def test_fuser_in_a_few_kernels(kernel_device, length):
    fuser = MVFuser(32).to(kernel_device).eval().requires_grad_(False)
    torch.manual_seed(0)
    fuser.scale.fill_(0.7)
    fuser.D.normal_()
    fuser.norm.weight.normal_()
    tokens = torch.randn(2, length, 32, device=kernel_device)

    with torch.no_grad():
        with fused.plain():
            expected = fuser(tokens)
        found, mixed = fuser._fused(tokens), fuser.mixed(tokens)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed, tokens + expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["eva", "clip", "siglip"])
def test_whole_network_of_transformers_gives_the_same_scores(device, variant):
    from mfuser_ros.network.fused.blocks import fuse_blocks
    from mfuser_ros.network.fused.decoders import fuse_decoders

    network = rebuild.mfuser(read_golden(GOLDEN / f"model_{variant}_tiny")).eval().requires_grad_(False)
    network = optimize(network.to(device))
    side = network.architecture.vlm.options["img_size"]
    picture = 255 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)

    with torch.inference_mode():
        with fused.plain():
            expected = assemble(network.predict(picture))
        blocks = [fuse_blocks(tower.net) for tower in network.towers]
        fuse_decoders(network)
        assert network.pixel_decoder.shared_keys is not None
        assert network.mask_decoder.shared_keys is not None
        fusers = [module for module in network.modules() if isinstance(module, MVFuser)]
        for fuser in fusers:
            fuser.backend = "auto" if fused.is_plain() else "triton"
        assert all(fuser.runs_fused(picture) != fused.is_plain() for fuser in fusers)
        found = assemble(network.predict(picture))

    assert all(count == len(tower.net.blocks) for count, tower in zip(blocks, network.towers, strict=True))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_mobilenet_tower_gives_the_same_maps(device):
    from mfuser_ros.network.fused.blocks import fuse_blocks

    torch.manual_seed(0)
    tower = MFuser(SMALL).vfm.to(device).eval().requires_grad_(False)
    for layer in tower.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            layer.bias.normal_()
    picture = 255 * torch.rand(1, 3, 32, 64, device=device)

    @torch.no_grad()
    def run() -> list[torch.Tensor]:
        states = [tower.embed(picture)]
        for stage in range(len(tower.widths)):
            states.append(tower.stage(stage, states[-1]).clone())
        return states

    expected = run()
    replaced = fuse_blocks(tower.net)

    found = run()

    assert replaced == sum(map(len, tower.net.blocks)) > 10
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
