"""The fast scans equal the plain loop, on awkward lengths too."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network import fused
from mfuser_ros.network.scan import Backend, chosen, loop, mamba, selective_scan
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


@pytest.fixture
def short_chunks(kernel_device, monkeypatch):
    """The Triton scan in chunks of 5 tokens, so that few tokens make many; the device it runs on."""
    from mfuser_ros.network.scan import kernel

    monkeypatch.setattr(kernel, "CHUNK", 5)
    return kernel_device


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of Triton's interpreter, in lanes that are masked
@pytest.mark.parametrize("shape", [(1, 1, 4), (2, 5, 3), (1, 17, 20), (2, 23, 5)])
def test_triton_scan_equals_the_loop_with_all_gradients(short_chunks, shape):
    assert_scan_equals_the_loop(shape, short_chunks, backend="triton")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: too long for Triton's interpreter")
@pytest.mark.parametrize("shape", [*SHAPES, (2, 896, 96)])
def test_triton_scan_in_full_chunks_equals_the_loop_with_all_gradients(kernel_device, shape):
    assert_scan_equals_the_loop(shape, kernel_device, backend="triton")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_triton_scan_of_raw_steps_forms_delta_and_decay_itself(short_chunks):
    from mfuser_ros.network.scan.kernel import scan_raw

    x, step, A_log, _, _, D = (tensor.detach().to(short_chunks) for tensor in scan_inputs(2, 13, 20, torch.float32))
    low = torch.randn(2, 13, 4 + 2 * 16, generator=torch.Generator().manual_seed(1)).to(short_chunks)
    bias = torch.linspace(-1, 1, 20, device=short_chunks)
    B, C = low[..., 4:].split(16, -1)  # columns of a wider tensor

    found = scan_raw(x, step, bias, A_log, B, C, D)

    expected = selective_scan(x, F.softplus(step + 2 * bias), -A_log.exp(), B, C, D, backend="loop")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_triton_scan_keeps_its_state_in_float32_for_half_precision_inputs(short_chunks, dtype):
    inputs = [tensor.detach().to(short_chunks) for tensor in scan_inputs(1, 23, 5, torch.float32)]
    x, delta, A, B, C, D = inputs
    halves = [tensor.to(dtype) for tensor in (x, B, C)]

    found = selective_scan(halves[0], delta, A, halves[1], halves[2], D, backend="triton")

    widened = [tensor.float() for tensor in halves]
    expected = selective_scan(widened[0], delta, A, widened[1], widened[2], D, backend="loop")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def assert_scan_equals_the_loop(shape: tuple[int, int, int], device: torch.device, *, backend: Backend) -> None:
    inputs = [tensor.detach().to(device).requires_grad_() for tensor in scan_inputs(*shape, dtype=torch.float32)]

    expected = selective_scan(*inputs, backend="loop")
    found = selective_scan(*inputs, backend=backend)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * scale)


class Theirs(ModuleType):
    """`selective_scan_cuda` by its interface (mamba-ssm 2.3, csrc/selective_scan/selective_scan.cpp), without a GPU."""

    @staticmethod
    def fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        assert (z, delta_bias, delta_softplus) == (None, None, False)
        batch, channels, length = u.shape
        assert delta.shape == u.shape
        assert B.shape == C.shape == (batch, 1, A.shape[1], length)
        assert all(part.dtype == torch.float32 and 1 in (part.stride(-1), part.shape[-1]) for part in (u, delta, B, C))
        thin = [part.squeeze(1).transpose(1, 2) for part in (B, C)]
        y = loop.scan(u.transpose(1, 2), delta.transpose(1, 2), A, *thin, D)
        return [y.transpose(1, 2).contiguous(), u.new_zeros(batch, channels, 1, 2 * A.shape[1])]

    @staticmethod
    def bwd(u, delta, A, B, C, D, z, delta_bias, dout, x, out, dz, delta_softplus, recompute_out_z):
        assert (z, delta_bias, out, dz, delta_softplus, recompute_out_z) == (None, None, None, None, False, False)
        assert x.shape[-1] == 2 * A.shape[1]
        parts = [part.detach().requires_grad_() for part in (u, delta, A, B, C, D)]
        with torch.enable_grad():
            y = Theirs.fwd(*parts, None, None, False)[0]
        return [*torch.autograd.grad(y, parts, dout), torch.empty(0)]


@pytest.fixture
def extension(monkeypatch):
    """mamba-ssm's extension without its package: the real one on a GPU, a stand-in elsewhere."""
    if not mamba.is_there():
        monkeypatch.setitem(sys.modules, "selective_scan_cuda", Theirs("selective_scan_cuda"))
        mamba.extension.cache_clear()
    yield
    monkeypatch.undo()
    mamba.extension.cache_clear()


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("shape", SHAPES)
def test_scan_of_mamba_ssm_gets_its_layout_and_gives_all_gradients_back(shape):
    real = not isinstance(mamba.extension(), Theirs)
    assert_scan_equals_the_loop(shape, torch.device("cuda" if real else "cpu"), backend="mamba_ssm")


@pytest.mark.skipif(mamba.is_there(), reason="selective_scan_cuda is built here")
def test_scan_of_mamba_ssm_says_what_is_missing():
    with pytest.raises(ConfigurationError, match="selective_scan_cuda cannot be imported: build mamba-ssm"):
        selective_scan(*scan_inputs(1, 3, 2, torch.float32), backend="mamba_ssm")


class OnGpu:
    """What the choice of a backend looks at, of a tensor on a GPU."""

    is_cuda = True
    dtype = torch.float32
    device = torch.device("cuda", 0)


@pytest.mark.usefixtures("extension")
def test_auto_prefers_triton_then_mamba_ssm_then_plain_torch_and_says_so_once(monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="mfuser_ros")
    sys.modules["mfuser_ros.network.scan.selective_scan"]._told.cache_clear()

    def find(there: bool) -> None:
        module = sys.modules["mfuser_ros.network.scan.selective_scan"]
        monkeypatch.setattr(module, "find_spec", lambda _: object() if there else None)

    find(there=True)
    assert [chosen(OnGpu(), state) for state in (16, 16, 12)] == ["triton", "triton", "mamba_ssm"]
    with fused.plain():
        assert chosen(OnGpu(), 16) == "blocked"
    with fused.plain(but_for_scan=True):
        assert chosen(OnGpu(), 16) == "triton"
    find(there=False)
    assert chosen(OnGpu(), 16) == "mamba_ssm"
    monkeypatch.setattr(mamba, "is_there", lambda: False)
    assert chosen(OnGpu(), 16) == "blocked"
    assert chosen(torch.zeros(1), 16) == "blocked"
    assert [record.getMessage() for record in caplog.records] == [
        "the selective scan runs as triton on cuda",
        "the selective scan runs as mamba_ssm on cuda",
        "the selective scan runs as blocked on cuda",
        "the selective scan runs as blocked on cpu",
    ]
