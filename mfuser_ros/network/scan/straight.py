"""The selective scan as few plain operations without loops or control flow: the form for exported graphs.

As in `blocked`, chunks of 16 tokens run side by side from a zero state. Their end states are chained by doubling: after
k rounds each chunk knows what the 2^k chunks up to itself left behind, so a graph grows with the logarithm of the
length and not with the length. The state at a chunk's start then reaches every token of the chunk at once, through the
decay since the chunk began. `blocked` takes fewer products and as many operations as there are chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 16  # tokens; the only loop that is unrolled


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Selective scan; shapes and equations as in `selective_scan`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, delta, A, B, C, D = (tensor.to(dtype) for tensor in (x, delta, A, B, C, D))
    length = x.shape[1]
    steps = _in_chunks(delta)  # (CHUNK, batch, chunks, H)
    B_chunks, C_chunks = _in_chunks(B), _in_chunks(C)  # (CHUNK, batch, chunks, N)
    rates = A.t()  # (N, H)

    # one slice of one token each, so that neither cutting nor joining changes the number of axes
    decays = torch.exp(steps[:, :, :, None, :] * rates).chunk(CHUNK)  # CHUNK times (1, batch, chunks, N, H)
    gains = ((steps * _in_chunks(x))[:, :, :, None, :] * B_chunks[..., None]).chunk(CHUNK)
    states = [gains[0]]  # after each token, from a zero state
    for decay, gain in zip(decays[1:], gains[1:], strict=True):
        states.append(decay * states[-1] + gain)

    passed = torch.cumsum(steps, 0)  # step sizes since the chunk began
    starts = _chained(passed[-1], states[-1][0], rates)
    reached = torch.cat(states) + torch.exp(passed[:, :, :, None, :] * rates) * starts
    y = torch.matmul(C_chunks[..., None, :], reached).squeeze(-2)  # (CHUNK, batch, chunks, H)
    return y.permute(1, 2, 0, 3).flatten(1, 2)[:, :length] + D * x


def _chained(steps: Tensor, ends: Tensor, rates: Tensor) -> Tensor:
    """State that enters each chunk.

    Args:
        steps: (batch, chunks, H) sum of the step sizes of each chunk.
        ends: (batch, chunks, N, H) end state of each chunk from a zero state.
        rates: (N, H) decay rates.
    """
    chunks = ends.shape[1]
    reach = 1
    while reach < chunks:
        earlier = F.pad(ends[:, :-reach], (0, 0, 0, 0, reach, 0))  # of the chunk `reach` places before, or zero
        ends = torch.exp(steps[:, :, None, :] * rates) * earlier + ends
        steps = F.pad(steps[:, :-reach], (0, 0, reach, 0)) + steps
        reach *= 2
    return F.pad(ends[:, :-1], (0, 0, 0, 0, 1, 0))


def _in_chunks(tensor: Tensor) -> Tensor:
    """(batch, L, F) -> (CHUNK, batch, chunks, F); zeros fill the last chunk: a step of 0 changes no state."""
    batch, length, features = tensor.shape
    padded = F.pad(tensor, (0, 0, 0, -length % CHUNK))
    return padded.view(batch, -1, CHUNK, features).permute(2, 0, 1, 3)
