"""MVFuser: the Mamba adapter that mixes the tokens of the two towers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network import fused
from mfuser_ros.network.scan import Backend, chosen, selective_scan

NORM_EPS = 1e-5


class MVFuser(nn.Module):
    """State-space mixer over a sequence of tokens; returns an offset that the caller adds.

    Source: spec of MFuser section 3.2 (paper section 3.2; derived from NVIDIA's MambaVision mixer).
    Two of its habits look like slips and are kept for parity: the bias of dt enters twice, and z passes SiLU twice.

    The published scan runs forward: a token hears of those before it only, so the VFM hears nothing of the VLM but at
    the border. With `scan="both"` (ours) a second scan with the same weights runs from the last token to the first,
    and the mean of both goes on.
    """

    def __init__(
        self,
        width: int,
        *,
        state: int = 16,
        initial_scale: float = 0.001,
        dropout: float = 0.1,
        scan: Literal["forward", "both"] = "forward",
    ) -> None:
        super().__init__()
        self.scan = scan
        inner = width // 2
        self.rank = math.ceil(width / 16)
        self.state = state
        self.backend: Backend = "auto"
        self.in_proj = nn.Linear(width, width, bias=False)
        self.conv_x = nn.Conv1d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.conv_z = nn.Conv1d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.x_proj = nn.Linear(inner, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.arange(1, state + 1, dtype=torch.float32).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.norm = nn.RMSNorm(inner, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(inner, width, bias=False)
        self.scale: nn.Parameter | None = nn.Parameter(torch.tensor(initial_scale))  # None: folded
        self._initialise_dt()

    def _initialise_dt(self) -> None:
        """Start with step sizes spread log-uniformly over 0.001 to 0.1 (Mamba's own initialisation)."""
        with torch.no_grad():
            bound = self.rank**-0.5
            self.dt_proj.weight.uniform_(-bound, bound)
            steps = torch.empty_like(self.dt_proj.bias).uniform_(math.log(0.001), math.log(0.1)).exp()
            self.dt_proj.bias.copy_(steps.expm1().log())  # softplus of it is the step

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, L, width) tokens of both towers, VFM first -> (batch, L, width) offsets."""
        backend = chosen(tokens, self.state) if self.backend == "auto" else self.backend
        if self.runs_fused(tokens):
            return self._fused(tokens)
        x, z = self.in_proj(tokens).chunk(2, -1)  # (batch, L, inner) each
        x = F.silu(_convolve_tokens(x, self.conv_x.weight))
        z = F.silu(_convolve_tokens(z, self.conv_z.weight))
        low, B, C = self.x_proj(x).split([self.rank, self.state, self.state], -1)
        with torch.autocast(x.device.type, enabled=False):  # step sizes and states need float32
            dtype = torch.promote_types(self.A_log.dtype, torch.float32)
            delta = F.softplus(F.linear(low.to(dtype), self.dt_proj.weight.to(dtype)) + 2 * self.dt_proj.bias.to(dtype))
            A = -torch.exp(self.A_log.to(dtype))
            y = selective_scan(x, delta, A, B, C, self.D, backend=backend)
            if self.scan == "both":
                x, delta, B, C = (part.flip(1) for part in (x, delta, B, C))
                y = (y + selective_scan(x, delta, A, B, C, self.D, backend=backend).flip(1)) / 2
            u = F.rms_norm(y, y.shape[-1:], self.norm.weight.to(dtype), NORM_EPS) * F.silu(z.to(dtype))
        offset: Tensor = self.dropout(self.out_proj(u.to(self.out_proj.weight.dtype)))
        return offset if self.scale is None else self.scale * offset

    def runs_fused(self, tokens: Tensor) -> bool:
        """Whether the kernels do the work for these tokens."""
        backend = chosen(tokens, self.state) if self.backend == "auto" else self.backend
        return backend == "triton" and self.scan == "forward" and fused.fits(tokens, self.state)

    def mixed(self, tokens: Tensor) -> Tensor:
        """Tokens plus their offsets, by the kernels; the last product adds them."""
        gated = self._gated(tokens)
        total = torch.addmm(tokens.flatten(0, 1), gated.flatten(0, 1), self.out_proj.weight.t())
        return total.view_as(tokens)

    @torch.no_grad()
    def fold_scale(self) -> None:
        """Multiply the scale into the norm's weight, once and for all; for inference.

        Between that weight and the scale there are products and the linear output map without a bias, so the result is
        the same. The norm runs in float32, where the product with a scale of 0.001 stays a normal number; in the output
        map, which fp16 arithmetic casts, most weights would become subnormal.
        """
        if self.scale is not None:
            self.norm.weight.mul_(self.scale)
            self.scale = None

    def _fused(self, tokens: Tensor) -> Tensor:
        """The same for inference on a GPU, in kernels that do several steps at once."""
        offset: Tensor = self.out_proj(self._gated(tokens))
        return offset

    def _gated(self, tokens: Tensor) -> Tensor:
        """All but the last linear map, the scale included."""
        from mfuser_ros.network.fused.tokens import convolve_silu, gated_norm  # noqa: PLC0415  (optional extra)
        from mfuser_ros.network.scan.kernel import scan_raw  # noqa: PLC0415

        x, z = convolve_silu(self.in_proj(tokens), self.conv_x.weight, self.conv_z.weight)
        low = self.x_proj(x)
        with torch.autocast(x.device.type, enabled=False):  # step sizes need float32
            step = F.linear(low[..., : self.rank].float(), self.dt_proj.weight.float())
            B, C = low[..., self.rank :].split(self.state, -1)
            y = scan_raw(x, step, self.dt_proj.bias.float(), self.A_log.float(), B, C, self.D.float())
        return gated_norm(y, z, self.norm.weight, self.scale, eps=NORM_EPS)


def _convolve_tokens(tokens: Tensor, weight: Tensor) -> Tensor:
    """Depthwise convolution of width 3 along the tokens; (batch, L, C) and weight (C, 1, 3), zeros outside.

    Three shifted products keep the channels last, which saves the two transpositions that `conv1d` needs.
    """
    padded = F.pad(tokens, (0, 0, 1, 1))
    before, here, after = weight[:, 0].unbind(1)
    return padded[:, :-2] * before + tokens * here + padded[:, 2:] * after
