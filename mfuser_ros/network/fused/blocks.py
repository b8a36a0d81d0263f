"""Blocks of plain vision transformers in fewer, larger steps: exact rewrites for inference on a GPU.

One product for queries, keys and values where timm has three, one for both halves of SwiGLU, its hidden channels padded
with zeros to a multiple of 64 (EVA02-L has 2730, which no tensor core likes), and the residual sum with the norm
that follows. A block that looks otherwise than expected is left as it is. Where `fused.fits` says no, the same steps
run in plain torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network import torchvision_mend
from mfuser_ros.network.fused import steps

torchvision_mend.mend()

import timm  # noqa: E402  # imports torchvision, hence after the mend
from timm.layers import Mlp, SwiGLU  # noqa: E402
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual  # noqa: E402
from timm.models.eva import EvaBlock  # noqa: E402
from timm.models.vision_transformer import Block  # noqa: E402

_ALIGNMENT = 64  # channels


class FusedBlock(nn.Module):
    """A pre-norm block of timm's VisionTransformer or Eva; the weights are its own."""

    gamma1: Tensor | None
    gamma2: Tensor | None

    def __init__(self, block: Any) -> None:  # timm is untyped
        """Take over a block for which `can_fuse` holds."""
        super().__init__()
        attention = block.attn
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.heads: int = attention.num_heads
        self.head_dim: int = attention.head_dim
        self.qkv = _joined_projections(attention)
        self.inner_norm, self.proj = attention.norm, attention.proj
        self.prefix: int = getattr(attention, "num_prefix_tokens", 0)
        self.register_buffer("gamma1", _layer_scale(block, 1))
        self.register_buffer("gamma2", _layer_scale(block, 2))
        self.mlp = _FusedSwiGLU(block.mlp) if isinstance(block.mlp, SwiGLU) else block.mlp

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        """(batch, L, D) tokens -> the same; `rope` is timm's rotary table of the tokens after the prefix."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm1(x))
        if rope is not None:
            steps.rotate_(qkv, rope, prefix=self.prefix, head=self.head_dim)
        q, k, v = qkv.view(batch, length, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, -1)
        attended = self.proj(self.inner_norm(attended))
        norm = self.norm2
        x, normed = steps.residual_norm(x, attended, self.gamma1, norm)
        y: Tensor = self.mlp(normed)
        return x + y if self.gamma2 is None else torch.addcmul(x, y, self.gamma2)


class _FusedSwiGLU(nn.Module):
    def __init__(self, mlp: Any) -> None:  # timm is untyped
        super().__init__()
        self.hidden: int = mlp.fc1_g.out_features
        self.norm = mlp.norm if isinstance(mlp.norm, nn.LayerNorm) else None
        padding = -self.hidden % _ALIGNMENT
        weights = [F.pad(layer.weight, (0, 0, 0, padding)) for layer in (mlp.fc1_g, mlp.fc1_x)]
        biases = [F.pad(layer.bias, (0, padding)) for layer in (mlp.fc1_g, mlp.fc1_x)]
        self.fc1 = _linear(torch.cat(weights), torch.cat(biases))
        self.fc2 = _linear(F.pad(mlp.fc2.weight, (0, padding)), mlp.fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(steps.swiglu_norm(self.fc1(x), self.norm, self.hidden))
        return y


class FusedResidual(nn.Module):
    """MobileNetV2's inverted residual with folded norms: biases, ReLU6 and shortcut in one pass over each map."""

    def __init__(self, block: Any) -> None:  # timm is untyped
        """Take over a block of a `MobileNetV2Tower`."""
        super().__init__()
        names = ("conv_pw", "conv_dw", "conv_pwl") if isinstance(block, InvertedResidual) else ("conv_dw", "conv_pw")
        convolutions = [getattr(block, name) for name in names]
        self.has_skip: bool = block.has_skip
        for index, convolution in enumerate(convolutions):
            self.register_buffer(f"bias{index}", convolution.bias.detach())
            convolution.bias = None
        self.convolutions = nn.ModuleList(convolutions)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) map -> the block's map."""
        shortcut = x if self.has_skip else None
        last = len(self.convolutions) - 1
        for index, convolution in enumerate(self.convolutions):
            bias: Tensor = getattr(self, f"bias{index}")
            x = steps.add_bias(convolution(x), bias, six=index < last, shortcut=shortcut if index == last else None)
        return x


def can_fuse_residual(block: nn.Module) -> bool:
    """Whether a block is a plain inverted residual with folded norms and ReLU6 between its convolutions."""
    if not isinstance(block, InvertedResidual | DepthwiseSeparableConv):
        return False
    parts: Any = block  # timm is untyped
    inner = [parts.bn1, parts.bn2] if isinstance(block, InvertedResidual) else [parts.bn1]
    last = parts.bn3 if isinstance(block, InvertedResidual) else parts.bn2
    plain = isinstance(parts.se, nn.Identity) and isinstance(last, nn.Identity)
    convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    return plain and all(isinstance(act, nn.ReLU6) for act in inner) and all(c.bias is not None for c in convolutions)


def can_fuse(block: nn.Module) -> bool:
    """Whether a block has the parts that `FusedBlock` reads, and no others that compute."""
    if not isinstance(block, Block | EvaBlock):
        return False
    attention: Any = block.attn
    mlp: Any = block.mlp
    plain = isinstance(attention.q_norm, nn.Identity) and isinstance(attention.k_norm, nn.Identity)
    plain &= getattr(attention, "gate", None) is None and not getattr(attention, "rotate_half", False)
    known = isinstance(mlp, SwiGLU) or (isinstance(mlp, Mlp) and isinstance(getattr(mlp, "norm", None), nn.Identity))
    return plain and known and isinstance(block.norm2, nn.LayerNorm)


@torch.no_grad()
def fuse_blocks(network: Any) -> int:  # timm is untyped
    """Replace the blocks of a timm transformer or MobileNetV2, in place; the number of blocks that were replaced."""
    replaced = 0
    if isinstance(network, timm.models.EfficientNet):
        for group in network.blocks:
            for index, block in enumerate(group):
                if can_fuse_residual(block):
                    group[index] = FusedResidual(block)
                    replaced += 1
        return replaced
    if not isinstance(network, timm.models.VisionTransformer | timm.models.Eva):
        return 0
    for index, block in enumerate(network.blocks):
        if can_fuse(block):
            network.blocks[index] = FusedBlock(block)
            replaced += 1
    return replaced


def _joined_projections(attention: Any) -> nn.Linear:  # timm is untyped
    if attention.qkv is not None and getattr(attention, "q_bias", None) is None:
        joined: nn.Linear = attention.qkv
        return joined
    if attention.qkv is not None:
        weight = attention.qkv.weight
        bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
        return _linear(weight, bias)
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight = torch.cat([part.weight for part in parts])
    biases = [torch.zeros_like(parts[0].weight[:, 0]) if part.bias is None else part.bias for part in parts]
    return _linear(weight, torch.cat(biases))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer.requires_grad_(requires_grad=False).eval()


def _layer_scale(block: Any, number: int) -> Tensor | None:  # timm is untyped
    scale = getattr(block, f"gamma_{number}", None)  # of EVA
    if scale is None:
        scale = getattr(getattr(block, f"ls{number}", None), "gamma", None)  # of a ViT
    return None if scale is None else scale.detach()
