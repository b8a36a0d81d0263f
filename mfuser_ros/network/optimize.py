"""Exact rewrites of a trained network for inference: the same numbers from less work."""

from __future__ import annotations

import torch
from torch import nn

from mfuser_ros.network.model import MFuser
from mfuser_ros.network.mvfuser import MVFuser
from mfuser_ros.network.neck import Pyramid
from mfuser_ros.network.text import TextEncoder


@torch.no_grad()
def optimize(network: MFuser) -> MFuser:
    """Do at once what inference would do for each picture, in place; the network can then be neither trained nor saved.

    - The BatchNorm of the pyramid is folded into the transposed convolution before it. The transposed convolutions that
      end levels 0 and 1 are merged with the 1x1 convolutions that the pixel decoder starts with: as published, 2048
      channels become 256 in one step, an eighth of the products and of the memory.
    - The scale of each MVFuser is folded into the weight of its norm (`MVFuser.fold_scale`). Its alternatives keep
      theirs: they end in a linear map, whose weights a scale of 0.001 would make subnormal in half precision.
    - A text tower that has its token ids gives place to its embeddings, which frees its memory.
    - Predictions of all query decoder layers but the last are skipped by `MFuser.predict`, optimized or not.

    Args:
        network: with its final weights, and its text tower set to the classes.

    Returns:
        The same network, in evaluation mode.
    """
    network.eval()
    neck, pixels = network.neck, network.pixel_decoder
    if isinstance(neck, Pyramid):
        up, norm, activation, raise_fine = neck.up4
        neck.up4 = nn.Sequential(_fold(up, norm), activation, _merge(raise_fine, pixels.lateral_conv.conv))
        pixels.lateral_conv.set_submodule("conv", nn.Identity())
        second = pixels.input_convs[2].get_submodule("conv")  # of level 1
        neck.up2 = nn.Sequential(_merge(neck.up2[0], second))
        pixels.input_convs[2].set_submodule("conv", nn.Identity())
    for part in network.modules():
        if isinstance(part, MVFuser):
            part.fold_scale()
    if isinstance(network.text, TextEncoder) and network.text.ids is not None:
        network.text = network.text.dropped()
    return network


def _fold(up: nn.Module, norm: nn.Module) -> nn.ConvTranspose2d:
    """A transposed convolution and the BatchNorm after it as one."""
    assert isinstance(up, nn.ConvTranspose2d)  # of `Pyramid`
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return _transposed(up, up.weight * gain.view(1, -1, 1, 1), norm.bias + gain * (_bias(up) - norm.running_mean))


def _merge(up: nn.Module, pointwise: nn.Module) -> nn.ConvTranspose2d:
    """A transposed convolution and the 1x1 convolution after it as one."""
    assert isinstance(up, nn.ConvTranspose2d)
    assert isinstance(pointwise, nn.Conv2d)
    assert pointwise.kernel_size == (1, 1)
    mix = pointwise.weight[:, :, 0, 0]  # (out, middle)
    weight = torch.einsum("imyx,om->ioyx", up.weight, mix)
    bias = mix @ _bias(up)
    return _transposed(up, weight, bias if pointwise.bias is None else bias + pointwise.bias)


def _bias(layer: nn.ConvTranspose2d) -> torch.Tensor:
    assert layer.bias is not None
    return layer.bias


def _transposed(like: nn.ConvTranspose2d, weight: torch.Tensor, bias: torch.Tensor) -> nn.ConvTranspose2d:
    """A 2x2 transposed convolution with the geometry of another and weights of its own."""
    with torch.device("meta"):
        layer = nn.ConvTranspose2d(weight.shape[0], weight.shape[1], 2, like.stride[0])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer.requires_grad_(requires_grad=False).eval()
