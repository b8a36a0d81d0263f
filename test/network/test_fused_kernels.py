"""Each Triton kernel gives what its plain torch form gives, on awkward shapes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.network.deformable import DeformableAttention
from mfuser_ros.network.positions import level_extents, level_starts, reference_points

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interpreter, in lanes that are masked


@pytest.fixture
def draw(kernel_device):
    """Random tensors on the device of the kernels."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(kernel_device)

    return drawn


@pytest.mark.parametrize(("batch", "length", "inner"), [(1, 1, 3), (2, 7, 6), (1, 40, 33)])
def test_convolution_pads_each_picture_with_zeros_and_z_gets_two_silus(draw, batch, length, inner):
    from mfuser_ros.network.fused.tokens import convolve_silu

    xz, weight_x, weight_z = draw(batch, length, 2 * inner), draw(inner, 1, 3), draw(inner, 1, 3)

    x, z = convolve_silu(xz, weight_x, weight_z)

    plain_x, plain_z = (
        F.silu(F.conv1d(half.transpose(1, 2), weight, padding=1, groups=inner)).transpose(1, 2)
        for half, weight in ((xz[..., :inner], weight_x), (xz[..., inner:], weight_z))
    )
    torch.testing.assert_close(x, plain_x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(z, F.silu(plain_z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [0.3, None])
def test_gated_norm_is_rms_norm_times_gate_times_scale(draw, kernel_device, scale):
    from mfuser_ros.network.fused.tokens import gated_norm

    y, z, weight = draw(2, 7, 6), draw(2, 7, 6), draw(6)

    found = gated_norm(y, z, weight, None if scale is None else torch.tensor(scale, device=kernel_device), eps=1e-5)

    expected = F.rms_norm(y, (6,), weight, 1e-5) * z * (scale or 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scaled", [True, False])
def test_residual_norm_is_sum_then_layer_norm(draw, scaled):
    from mfuser_ros.network.fused.tokens import residual_norm

    x, y, gamma, weight, bias = draw(2, 5, 10), draw(2, 5, 10), draw(10), draw(10), draw(10)

    total, normed = residual_norm(x, y, gamma if scaled else None, weight, bias, eps=1e-6)

    expected = x + (gamma * y if scaled else y)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(normed, F.layer_norm(expected, (10,), weight, bias, 1e-6), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", [None, (5, 10), (2, 5, 10)])
def test_norm_of_sum_comes_with_and_without_positions(draw, position):
    from mfuser_ros.network.fused.tokens import norm_of_sum

    x, y, weight, bias = draw(2, 5, 10), draw(2, 5, 10), draw(10), draw(10)
    place = None if position is None else draw(*position)

    normed, placed = norm_of_sum(x, y, weight, bias, place, eps=1e-6)

    expected = F.layer_norm(x + y, (10,), weight, bias, 1e-6)
    torch.testing.assert_close(normed, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(placed, expected if place is None else expected + place, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normed", [True, False])
def test_swiglu_norm_leaves_padding_out_of_the_mean(draw, normed):
    from mfuser_ros.network.fused.tokens import swiglu_norm

    both, weight, bias = draw(2, 3, 16), draw(6), draw(6)  # 6 channels that count, 2 of padding

    found = swiglu_norm(both, weight if normed else None, bias if normed else None, hidden=6, eps=1e-6)

    expected = F.silu(both[..., :6]) * both[..., 8:14]
    if normed:
        expected = F.layer_norm(expected, (6,), weight, bias, 1e-6)
    torch.testing.assert_close(found[..., :6], expected, rtol=1e-5, atol=1e-5)
    assert not found[..., 6:].any()


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_rotation_turns_queries_and_keys_behind_the_prefix_alone(draw, prefix):
    from mfuser_ros.network.fused.tokens import rotate_

    heads, head, length = 2, 8, 7
    angles = draw(length - prefix, head // 2).repeat_interleave(2, -1)
    qkv = draw(2, length, 3 * heads * head)
    before = qkv.clone()

    rotate_(qkv, torch.cat([angles.sin(), angles.cos()], -1), prefix=prefix, head=head)

    found, old = (tensor.view(2, length, 3, heads, head // 2, 2) for tensor in (qkv, before))
    turned = torch.view_as_complex(old[:, prefix:, :2].contiguous())  # a rotation is a complex product
    turned = turned * torch.polar(torch.ones_like(angles[:, ::2]), angles[:, ::2])[:, None, None]
    torch.testing.assert_close(found[:, prefix:, :2], torch.view_as_real(turned), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[:, :prefix], old[:, :prefix], rtol=0, atol=0)
    torch.testing.assert_close(found[:, :, 2], old[:, :, 2], rtol=0, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("six", [True, False])
@pytest.mark.parametrize("short", [True, False])
def test_bias_relu6_and_shortcut_follow_the_layout(draw, layout, six, short):
    from mfuser_ros.network.fused.maps import add_bias_

    x, bias, other = (5 * draw(2, 3, 5, 7)).contiguous(memory_format=layout), draw(3), draw(2, 3, 5, 7)

    expected = x + bias[:, None, None]
    expected = F.relu6(expected) if six else expected
    expected = expected + other if short else expected
    found = add_bias_(x, bias, six=six, shortcut=other if short else None)

    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=layout)


def test_deformable_attention_equals_its_plain_form_far_outside_too(draw, kernel_device):
    torch.manual_seed(0)
    sizes, batch = ((3, 4), (5, 7), (9, 13)), 2
    tokens = sum(height * width for height, width in sizes)
    layer = DeformableAttention(32, 4, 3, 4).to(kernel_device)
    torch.nn.init.normal_(layer.sampling_offsets.weight, std=1.5)  # places up to dozens of cells outside
    torch.nn.init.normal_(layer.attention_weights.weight, std=0.5)
    query, value = draw(batch, tokens, 32), draw(batch, tokens, 32)
    reference = reference_points(sizes, kernel_device)

    with torch.no_grad():
        values = layer.value_proj(value).unflatten(-1, (4, -1))
        found = layer._fused(query, values, reference, sizes)
    with torch.enable_grad():  # takes the plain form on a GPU, too
        expected = layer(query, value, reference, sizes)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert level_starts(sizes, kernel_device).tolist() == [0, 12, 47]
    assert level_extents(sizes, kernel_device)[2].tolist() == [13, 9]


def test_best_class_enlarges_takes_the_largest_and_blanks_the_unsure(draw, kernel_device):
    from mfuser_ros.network.fused.sampling import best_class

    probability = draw(2, 5, 6, 9).mul(2).softmax(1).contiguous()
    out = torch.empty(3, 2, 20, 31, dtype=torch.uint8, device=kernel_device)

    best_class(probability, torch.tensor(0.5, device=kernel_device), (20, 31), out)

    best, labels = F.interpolate(probability, (20, 31), mode="bilinear").max(1)
    labels_found, confidence, mask = out.cpu().int()
    torch.testing.assert_close(labels_found, labels.cpu().int())
    assert (confidence - (best * 255).cpu()).abs().max() <= 0.51
    unsure = best.cpu() < 0.5
    assert 0 < unsure.float().mean() < 1
    assert (mask[unsure] == 255).all()
    torch.testing.assert_close(mask[~unsure], labels_found[~unsure])
