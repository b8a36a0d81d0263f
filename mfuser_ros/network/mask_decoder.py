"""Masked-attention query decoder: text queries become class probabilities and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network.attention import attend, attend_itself
from mfuser_ros.network.config import HeadConfig
from mfuser_ros.network.fused.steps import norm_of_sum
from mfuser_ros.network.pixel_decoder import LEVELS, PixelFeatures
from mfuser_ros.network.positions import sine_encoding


@dataclass(frozen=True)
class Prediction:
    """One prediction of the decoder for Q queries and K classes; with text there is a query for each class."""

    class_logits: Tensor  # (batch, Q, K + 1), the last column is "no object"
    mask_logits: Tensor  # (batch, Q, H, W) at the resolution of the mask features


def assemble(prediction: Prediction) -> Tensor:
    """Scores (batch, K, H, W) of the classes: sum over queries of class probability times mask probability.

    Source: spec of MFuser section 5.5.
    """
    probability = prediction.class_logits.float().softmax(-1)[..., :-1]  # (batch, queries, classes)
    masks = prediction.mask_logits.float().sigmoid()
    return torch.einsum("bqc,bqhw->bchw", probability, masks)


class _QueryDecoderLayer(nn.Module):
    """Masked attention to the picture, attention among the queries, feed-forward; norms after each."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width = config.width
        self.cross_attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.self_attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.ffn = nn.Sequential(
            nn.Linear(width, config.query_hidden), nn.ReLU(), nn.Linear(config.query_hidden, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, query: Tensor, query_position: Tensor, key: Tensor, value: Tensor, blocked: Tensor) -> Tensor:
        """Queries (batch, Q, width), their positions, keys and values (batch, T, width), (batch, Q, T) -> queries."""
        mask = blocked.repeat_interleave(self.cross_attention.num_heads, 0)
        attended, _ = self.cross_attention(query + query_position, key, value, attn_mask=mask, need_weights=False)
        query = self.norms[0](query + attended)
        attended, _ = self.self_attention(query + query_position, query + query_position, query, need_weights=False)
        query = self.norms[1](query + attended)
        decoded: Tensor = self.norms[2](query + self.ffn(query))
        return decoded

    def decode_projected(
        self, query: Tensor, query_position: Tensor, key: Tensor, value: Tensor, blocked: Tensor
    ) -> Tensor:
        """The same for keys and values that `SharedKeys` has projected."""
        attended = attend(self.cross_attention, query + query_position, key, value, ~blocked)
        query, placed = norm_of_sum(query, attended, self.norms[0], query_position)
        attended = attend_itself(self.self_attention, placed, query)
        query, _ = norm_of_sum(query, attended, self.norms[1], None)
        return norm_of_sum(query, self.ffn(query), self.norms[2], None)[0]


class MaskDecoder(nn.Module):
    """Decodes one mask for each query; with text, query k stands for class k.

    Queries linked to learned tokens bring their own position and are mapped to what they hold; text queries are what
    the decoder starts from, and their positions are learned.

    Source: Cheng et al., Mask2Former (2022); spec of MFuser sections 5.2 and 10.2.
    """

    def __init__(self, config: HeadConfig, text_width: int, classes: int, *, linked: bool = False) -> None:
        super().__init__()
        width = config.width
        self.linked = linked
        if linked:
            self.content = nn.Linear(width, width)
        else:
            self.text_proj = nn.Sequential(nn.Linear(text_width, width), nn.ReLU(), nn.Linear(width, width))
            self.query_embed = nn.Embedding(classes, width)
        self.level_embed = nn.Embedding(LEVELS, width)
        self.layers = nn.ModuleList(_QueryDecoderLayer(config) for _ in range(config.query_layers))
        self.post_norm = nn.LayerNorm(width)
        self.class_embed = nn.Linear(width, classes + 1)
        self.shared_keys: nn.ModuleList | None = None  # for inference: of each level, for the layers that look at it
        self.mask_embed = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, features: PixelFeatures, text: Tensor, *, every: bool) -> list[Prediction]:
        """Decode.

        Args:
            features: of the pixel decoder.
            text: (batch, K, text_width) enhanced text queries, or (batch, Q, width) linked ones.
            every: give a prediction before the first layer and after each one (training); else only the last.
        """
        keys, values, shrunk = [], [], []
        fine = features.mask_features
        if fine.is_cuda:  # torch shrinks many channels five times faster if they lie side by side
            fine = fine.contiguous(memory_format=torch.channels_last)
        for level, memory in enumerate(features.memory):
            height, width = memory.shape[-2:]
            value = memory.flatten(2).transpose(1, 2) + self.level_embed.weight[level]
            values.append(value)
            keys.append(value + sine_encoding(height, width, value.shape[-1], value.device).to(value.dtype))
            # shrinking is linear: shrunk features give the same mask as a mask that is shrunk, once for all layers
            with torch.no_grad():
                small = F.interpolate(fine, (height, width), mode="bilinear", align_corners=False)
            shrunk.append(small.flatten(2))

        query = self.content(text) if self.linked else self.text_proj(text)  # (batch, Q, width)
        query_position = text if self.linked else self.query_embed.weight
        predictions = []
        projected = (
            None
            if self.shared_keys is None
            else [shared(key, value) for shared, key, value in zip(self.shared_keys, keys, values, strict=True)]
        )
        for index, layer in enumerate(self.layers):
            state = self.post_norm(query)
            if every:
                predictions.append(self._predict(state, features.mask_features))
            level = index % LEVELS
            blocked = self._attention_mask(state, shrunk[level])
            if projected is None:
                query = layer(query, query_position, keys[level], values[level], blocked)
            else:
                of_layer: Any = layer  # which a ModuleList knows as a mere module
                query = of_layer.decode_projected(query, query_position, *projected[level][index // LEVELS], blocked)
        predictions.append(self._predict(self.post_norm(query), features.mask_features))
        return predictions

    def _predict(self, state: Tensor, mask_features: Tensor) -> Prediction:
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_embed(state), mask_features)
        return Prediction(self.class_embed(state), masks)

    @torch.no_grad()
    def _attention_mask(self, state: Tensor, shrunk: Tensor) -> Tensor:
        """(batch, K, tokens) True where a query must not look; one that may look nowhere looks everywhere."""
        blocked: Tensor = self.mask_embed(state) @ shrunk < 0  # (batch, K, tokens): sigmoid below 0.5
        return blocked & ~blocked.all(-1, keepdim=True)
