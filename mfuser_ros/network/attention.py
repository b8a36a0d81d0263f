"""Multi-head attention for inference in fewer products than torch's module takes; the weights are the module's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SharedKeys(nn.Module):
    """Keys and values of several attentions over the same tokens, in two products for all of them."""

    key_weight: Tensor
    key_bias: Tensor
    value_weight: Tensor
    value_bias: Tensor

    def __init__(self, attentions: Sequence[nn.MultiheadAttention]) -> None:
        """Copy the weights of attentions of one width, as they are now."""
        super().__init__()
        self.heads = attentions[0].num_heads
        self.count = len(attentions)
        thirds = [(each.in_proj_weight.detach().chunk(3), each.in_proj_bias.detach().chunk(3)) for each in attentions]
        for index, name in ((1, "key"), (2, "value")):
            self.register_buffer(f"{name}_weight", torch.cat([weight[index] for weight, _ in thirds]), persistent=False)
            self.register_buffer(f"{name}_bias", torch.cat([bias[index] for _, bias in thirds]), persistent=False)

    def forward(self, key: Tensor, value: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(batch, T, width) tokens -> for each attention keys and values, (batch, heads, T, width / heads)."""
        keys = F.linear(key, self.key_weight, self.key_bias).chunk(self.count, -1)
        values = F.linear(value, self.value_weight, self.value_bias).chunk(self.count, -1)
        return [(_by_head(k, self.heads), _by_head(v, self.heads)) for k, v in zip(keys, values, strict=True)]


def attend(
    attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None
) -> Tensor:
    """What the module gives for keys and values that `SharedKeys` has projected.

    Args:
        attention: with batch_first.
        query: (batch, Q, width).
        key: (batch, heads, T, width / heads).
        value: of the same shape.
        allowed: (batch, Q, T) True where a query may look; None: everywhere.
    """
    width = attention.embed_dim
    projected = F.linear(query, attention.in_proj_weight[:width], attention.in_proj_bias[:width])
    mask = None if allowed is None else allowed[:, None]
    attended = F.scaled_dot_product_attention(_by_head(projected, attention.num_heads), key, value, mask)
    return _out(attention, attended)


def attend_itself(attention: nn.MultiheadAttention, placed: Tensor, tokens: Tensor) -> Tensor:
    """What the module gives for `placed` as queries and keys and `tokens` as values, (batch, Q, width) each."""
    width, heads = attention.embed_dim, attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    both = F.linear(placed, weight[: 2 * width], bias[: 2 * width])
    query, key = (_by_head(part, heads) for part in both.chunk(2, -1))
    value = _by_head(F.linear(tokens, weight[2 * width :], bias[2 * width :]), heads)
    return _out(attention, F.scaled_dot_product_attention(query, key, value))


def _by_head(tokens: Tensor, heads: int) -> Tensor:
    return tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2)


def _out(attention: nn.MultiheadAttention, attended: Tensor) -> Tensor:
    out = attention.out_proj
    return F.linear(attended.transpose(1, 2).flatten(2), out.weight, out.bias)
