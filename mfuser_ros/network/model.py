"""MFuser: picture -> class scores. Reads as figure 2 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfuser_ros.network.config import Architecture
from mfuser_ros.network.fusion import FusionSite
from mfuser_ros.network.joint import JointProjection, build_joint, score_map, with_global_token
from mfuser_ros.network.mask_decoder import MaskDecoder, Prediction, assemble
from mfuser_ros.network.mtenhancer import MTEnhancer
from mfuser_ros.network.neck import build_neck
from mfuser_ros.network.pixel_decoder import PixelDecoder, PixelFeatures
from mfuser_ros.network.text import build_text
from mfuser_ros.network.towers import build_tower

__all__ = ["MFuser", "Output", "Prediction", "assemble"]


@dataclass(frozen=True)
class Encoded:
    """Both towers' view of the pictures."""

    pyramid: list[Tensor]  # four levels (batch, channels, h, w), finest first
    picture: Tensor  # (batch, 1 + N, text_width) in text space: global token, then the grid row by row
    grid: tuple[int, int]  # height and width of that grid


@dataclass(frozen=True)
class Output:
    """All that training and parity look at."""

    encoded: Encoded
    text: Tensor  # (K, text_width) raw text embeddings
    queries: Tensor  # (batch, K, text_width) enhanced ones
    features: PixelFeatures
    predictions: list[Prediction]  # before the first layer of the query decoder and after each
    score_map: Tensor  # (batch, K, h, w) cosine similarity of places and enhanced text
    score_logits: Tensor  # the same times the scale of the architecture, plus its bias: what training compares


class MFuser(nn.Module):
    """Two vision towers side by side, mixed by MVFusers, decoded with text queries conditioned on the picture.

    Source: Zhang and Tan, Mamba as a Bridge, CVPR 2025; spec of MFuser sections 1 to 5.
    """

    def __init__(self, architecture: Architecture, token_ids: Sequence[Sequence[int]] | None = None) -> None:
        """Build with random weights.

        Args:
            architecture: the whole description.
            token_ids: ids of the class names for an architecture with a text tower.
        """
        super().__init__()
        self.architecture = architecture
        self.vfm = build_tower(architecture.vfm)
        self.vlm = build_tower(architecture.vlm)
        widths = [vfm + vlm for vfm, vlm in zip(self.vfm.widths, self.vlm.widths, strict=True)]
        self.fusion = nn.ModuleDict({
            str(stage): FusionSite(architecture.fusion, self.vfm.widths[stage], self.vlm.widths[stage])
            for stage in architecture.fusion.stages
        })  # fmt: skip
        self.neck = build_neck(architecture.neck, widths)
        self.joint = build_joint(architecture, self.vfm, self.vlm)
        self.text = build_text(architecture, token_ids)
        self.enhancer = MTEnhancer(architecture.enhancer, architecture.text_width)
        head, text_width, classes = architecture.head, architecture.text_width, architecture.classes
        self.pixel_decoder = PixelDecoder(head, self.neck.channels, text_width, classes)
        self.mask_decoder = MaskDecoder(head, text_width, classes)

    def encode(self, pictures: Tensor) -> Encoded:
        """(batch, 3, H, W) RGB 0..255 -> pyramid and joint embedding."""
        size = (pictures.shape[2], pictures.shape[3])
        vfm, vlm = self.vfm.embed(pictures), self.vlm.embed(pictures)
        taps = {}
        for stage in range(len(self.vfm.widths)):
            vfm, vlm = self.vfm.stage(stage, vfm), self.vlm.stage(stage, vlm)
            if str(stage) in self.fusion:
                mixed_vfm, mixed_vlm = self.fusion[str(stage)](self.vfm.tokens(vfm), self.vlm.tokens(vlm))
                vfm, vlm = self.vfm.with_tokens(vfm, mixed_vfm), self.vlm.with_tokens(vlm, mixed_vlm)
            if stage in self.neck.taps:
                taps[stage] = torch.cat([self.vfm.grid(vfm, size), self.vlm.grid(vlm, size)], 1)
        height, width = self.vlm.grid(vlm, size).shape[-2:]
        return Encoded(self.neck(taps), self._joint(vfm, vlm), (height, width))

    def _joint(self, vfm: Tensor, vlm: Tensor) -> Tensor:
        """(batch, 1 + N, text_width) from the last states of both towers (spec 2.7)."""
        tokens_vfm, tokens_vlm = self.vfm.tokens(vfm), self.vlm.tokens(vlm)
        if isinstance(self.joint, JointProjection):
            return with_global_token(self.joint(tokens_vfm, tokens_vlm), class_token=self.vlm.class_token)
        if self.joint is not None:  # CLIP
            return self.vlm.to_text_space(self.vlm.final_norm(tokens_vlm + self.joint(tokens_vfm)))
        paired = self.vfm.final_norm(tokens_vfm)[:, -tokens_vlm.shape[1] :]  # SigLIP has no class token
        return self.vlm.to_text_space(self.vlm.final_norm(tokens_vlm) + paired)

    def forward(self, pictures: Tensor) -> Output:
        """(batch, 3, H, W) RGB 0..255 -> everything that training and parity look at."""
        encoded = self.encode(pictures)
        text = self.text()
        queries = self.enhancer(text.expand(len(pictures), -1, -1), encoded.picture)
        features = self.pixel_decoder(encoded.pyramid, queries)
        predictions = self.mask_decoder(features, queries, every=True)
        scores = score_map(encoded.picture, queries, encoded.grid)
        logits = self.architecture.score_scale * scores.float() + self.architecture.score_bias
        return Output(encoded, text, queries, features, predictions, scores, logits)

    def predict(self, pictures: Tensor) -> Prediction:
        """(batch, 3, H, W) RGB 0..255 -> the last prediction alone; what inference needs."""
        encoded = self.encode(pictures)
        queries = self.enhancer(self.text().expand(len(pictures), -1, -1), encoded.picture)
        features = self.pixel_decoder(encoded.pyramid, queries)
        last: Prediction = self.mask_decoder(features, queries, every=False)[-1]
        return last
