"""The fast scans equal the plain loop, on awkward lengths too."""

from __future__ import annotations

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.network.scan import selective_scan
from mfuser_ros.network.scan.blocked import CHUNK

SHAPES = [(1, 1, 4), (2, CHUNK, 3), (3, CHUNK + 1, 5), (1, 5 * CHUNK - 1, 8)]  # batch, tokens, channels


def scan_inputs(batch: int, length: int, channels: int, dtype: torch.dtype, state: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    x, delta = draw(batch, length, channels), F.softplus(draw(batch, length, channels))
    A = -torch.exp(0.5 * draw(channels, state))
    B, C, D = draw(batch, length, state), draw(batch, length, state), draw(channels)
    return [tensor.requires_grad_() for tensor in (x, delta, A, B, C, D)]


def test_loop_equals_a_scan_worked_by_hand():
    # one channel, one state: s1 = 1*2*3 = 6, s2 = exp(-0.5)*6 + 0.5*4*1
    x, delta = torch.tensor([[[2.0], [4.0]]]), torch.tensor([[[1.0], [0.5]]])
    A, D = torch.tensor([[-1.0]]), torch.tensor([10.0])
    B, C = torch.tensor([[[3.0], [1.0]]]), torch.tensor([[[1.0], [2.0]]])

    y = selective_scan(x, delta, A, B, C, D, backend="loop")

    second_state = 6 * 0.6065306597 + 2
    torch.testing.assert_close(y, torch.tensor([[[6.0 + 20.0], [2 * second_state + 40.0]]]))


@pytest.mark.parametrize("backend", ["blocked", "straight"])
@pytest.mark.parametrize("shape", SHAPES)
def test_scan_in_chunks_equals_the_loop_with_all_gradients(shape, backend):
    inputs = scan_inputs(*shape, dtype=torch.float64)

    expected = selective_scan(*inputs, backend="loop")
    found = selective_scan(*inputs, backend=backend)

    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(
        torch.autograd.grad(found.sin().sum(), inputs), torch.autograd.grad(expected.sin().sum(), inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_straight_scan_of_twice_the_length_is_one_round_longer():
    from torch.fx.experimental.proxy_tensor import make_fx

    def operations(chunks: int) -> int:
        inputs = [tensor.detach() for tensor in scan_inputs(1, chunks * CHUNK, 2, torch.float32)]
        return len(make_fx(lambda *given: selective_scan(*given, backend="straight"))(*inputs).graph.nodes)

    rounds = [operations(chunks) for chunks in (4, 8, 16, 32)]
    assert len(set(np.diff(rounds))) == 1  # the same few operations for each doubling
    assert rounds[1] - rounds[0] < 15


@pytest.mark.parametrize("backend", ["blocked", "straight"])
def test_scan_in_chunks_survives_large_steps_over_a_long_sequence(backend):
    x, _, A, B, C, D = scan_inputs(1, 400, 2, torch.float32)
    delta = torch.full_like(x, 30.0)  # a product of decays over one chunk underflows, its inverse would overflow

    y = selective_scan(x, delta, A, B, C, D, backend=backend)

    assert torch.isfinite(y).all()
    torch.testing.assert_close(y, selective_scan(x, delta, A, B, C, D, backend="loop"), rtol=1e-4, atol=1e-3)


def test_a_later_token_never_reaches_an_earlier_one():
    inputs = scan_inputs(1, 40, 3, torch.float64)
    changed = inputs[0].detach().clone()
    changed[:, 25:] += 1

    before = selective_scan(*inputs, backend="blocked")
    after = selective_scan(changed, *inputs[1:], backend="blocked")

    torch.testing.assert_close(before[:, :25], after[:, :25])
    assert not torch.allclose(before[:, 25:], after[:, 25:])


@pytest.mark.skipif(
    not torch.cuda.is_available() or find_spec("triton") is None,
    reason="needs a GPU and the [cuda] extra: the Triton kernel does not run on a CPU",
)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 896, 96)])
def test_triton_scan_equals_the_loop_with_all_gradients(shape):
    assert os.environ.get("TRITON_INTERPRET") != "1"
    inputs = [tensor.detach().cuda().requires_grad_() for tensor in scan_inputs(*shape, dtype=torch.float32)]

    expected = selective_scan(*inputs, backend="loop")
    found = selective_scan(*inputs, backend="triton")

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * scale)
