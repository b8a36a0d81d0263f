"""The selective scan in chunks that advance side by side: plain torch, a few wide steps instead of many narrow ones.

Each chunk first runs from a zero state, which gives its end state; the end states are chained, chunk by chunk, into
the true state at the start of each chunk; then every chunk runs once more from there. The only exponentials are of
``delta A`` and of its sums, which are never positive, so nothing overflows however long the sequence is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 16  # tokens; longer chunks mean more steps, shorter ones a longer chain


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Selective scan; shapes and equations as in `selective_scan`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, delta, A, B, C, D = (tensor.to(dtype) for tensor in (x, delta, A, B, C, D))
    length = x.shape[1]
    steps = _in_chunks(delta)  # (CHUNK, batch, chunks, H)
    inputs = steps * _in_chunks(x)
    B_chunks, C_chunks = _in_chunks(B), _in_chunks(C)  # (CHUNK, batch, chunks, N)
    rates = A.t()  # (N, H): channels last, so that each step is one long vector operation

    decays = torch.exp(steps[:, :, :, None, :] * rates)  # (CHUNK, batch, chunks, N, H)
    gains = inputs[:, :, :, None, :] * B_chunks[..., None]

    state = gains[0]
    for t in range(1, CHUNK):
        state = torch.addcmul(gains[t], decays[t], state)
    ends = state.unbind(1)  # of each chunk, from a zero state
    spans = torch.exp(steps.sum(0)[:, :, None, :] * rates).unbind(1)  # decay over a whole chunk

    carry = torch.zeros_like(ends[0])
    starts = []
    for span, end in zip(spans, ends, strict=True):
        starts.append(carry)
        carry = torch.addcmul(end, span, carry)

    state = torch.stack(starts, 1)
    outputs = []
    for t in range(CHUNK):
        state = torch.addcmul(gains[t], decays[t], state)
        outputs.append(torch.matmul(C_chunks[t][:, :, None, :], state).squeeze(2))  # (batch, chunks, H)
    y = torch.stack(outputs, 2).flatten(1, 2)[:, :length]
    return torch.addcmul(y, D, x)


def _in_chunks(tensor: Tensor) -> Tensor:
    """(batch, L, F) -> (CHUNK, batch, chunks, F); zeros fill the last chunk: a step of 0 changes no state."""
    batch, length, features = tensor.shape
    padded = F.pad(tensor, (0, 0, 0, -length % CHUNK))
    return padded.view(batch, -1, CHUNK, features).permute(2, 0, 1, 3).contiguous()
