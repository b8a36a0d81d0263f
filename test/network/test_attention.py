"""Attention in fewer products gives what torch's module gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mfuser_ros.network.attention import SharedKeys, attend, attend_itself


@pytest.fixture
def attentions() -> list[nn.MultiheadAttention]:
    torch.manual_seed(0)
    made = [nn.MultiheadAttention(24, 3, batch_first=True).eval().requires_grad_(False) for _ in range(3)]
    for each in made:
        nn.init.normal_(each.in_proj_bias)
        nn.init.normal_(each.out_proj.bias)
    return made


def test_shared_keys_serve_each_attention_as_its_own(attentions):
    query, key, value = torch.randn(2, 5, 24), torch.randn(2, 11, 24), torch.randn(2, 11, 24)

    projected = SharedKeys(attentions)(key, value)

    assert len(projected) == 3
    for attention, pair in zip(attentions, projected, strict=True):
        expected = attention(query, key, value, need_weights=False)[0]
        torch.testing.assert_close(attend(attention, query, *pair), expected, rtol=1e-5, atol=1e-5)


def test_mask_says_where_each_query_may_look(attentions):
    attention = attentions[0]
    query, key = torch.randn(2, 5, 24), torch.randn(2, 11, 24)
    allowed = torch.rand(2, 5, 11) < 0.4
    allowed[..., 3] = True  # everybody looks somewhere

    found = attend(attention, query, *SharedKeys([attention])(key, key)[0], allowed)

    blocked = ~allowed.repeat_interleave(3, 0)
    expected = attention(query, key, key, attn_mask=blocked, need_weights=False)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_attention_to_itself_takes_values_without_positions(attentions):
    tokens, position = torch.randn(2, 5, 24), torch.randn(5, 24)
    placed = tokens + position

    found = attend_itself(attentions[0], placed, tokens)

    expected = attentions[0](placed, placed, tokens, need_weights=False)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_shared_keys_are_no_part_of_a_saved_network(attentions):
    assert not SharedKeys(attentions).state_dict()
