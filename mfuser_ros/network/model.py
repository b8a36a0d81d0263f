"""MFuser: picture -> class scores. Reads as figure 2 of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mfuser_ros.network import fused
from mfuser_ros.network.alternatives import RankedTokens
from mfuser_ros.network.config import Architecture
from mfuser_ros.network.fusion import build_fusion
from mfuser_ros.network.joint import build_joint, join, score_map
from mfuser_ros.network.mask_decoder import MaskDecoder, Prediction, assemble
from mfuser_ros.network.mtenhancer import build_enhancer
from mfuser_ros.network.neck import build_neck
from mfuser_ros.network.pixel_decoder import PixelDecoder, PixelFeatures
from mfuser_ros.network.text import build_text
from mfuser_ros.network.tower import Tower
from mfuser_ros.network.towers import build_tower, check_grids

__all__ = ["MFuser", "Output", "Prediction", "assemble"]


@dataclass(frozen=True)
class Encoded:
    """Both towers' view of the pictures."""

    pyramid: list[Tensor]  # four levels (batch, channels, h, w), finest first
    tokens: list[Tensor]  # the last (batch, L, width) of each tower
    picture: Tensor | None  # (batch, 1 + N, text_width) in text space: global token, then the grid row by row
    grid: tuple[int, int]  # height and width of that grid


@dataclass(frozen=True)
class Output:
    """All that training and parity look at."""

    encoded: Encoded
    text: Tensor  # (K, text_width) raw text embeddings, or the queries that stand in their place
    queries: Tensor  # (batch, K, text_width) enhanced ones
    features: PixelFeatures
    predictions: list[Prediction]  # before the first layer of the query decoder and after each
    score_map: Tensor | None  # (batch, K, h, w) cosine similarity of places and enhanced text, if there is text
    score_logits: Tensor | None  # the same times the scale of the architecture, plus its bias: what training compares


class MFuser(nn.Module):
    """Two vision towers side by side, mixed by MVFusers, decoded with text queries conditioned on the picture.

    Source: Zhang and Tan, Mamba as a Bridge, CVPR 2025; spec of MFuser sections 1 to 5.
    """

    vfm: Tower
    vlm: Tower

    def __init__(self, architecture: Architecture, token_ids: Sequence[Sequence[int]] | None = None) -> None:
        """Build with random weights.

        Args:
            architecture: the whole description.
            token_ids: ids of the class names for an architecture with a text tower.
        """
        super().__init__()
        self.architecture = architecture
        self.second_stream: torch.cuda.Stream | None = None  # for inference on a GPU
        for name in architecture.tower_names:
            self.add_module(name, build_tower(getattr(architecture, name)))
        check_grids(self.towers)
        towers = dict(zip(architecture.tower_names, self.towers, strict=True))
        widths = {name: tower.widths for name, tower in towers.items()}
        self.fusion = build_fusion(architecture.fusion, widths)
        self.neck = build_neck(architecture.neck, [sum(stage) for stage in zip(*widths.values(), strict=True)])
        self.joint = build_joint(architecture, towers)
        learned = [module for module in self.fusion.modules() if isinstance(module, RankedTokens)]
        self.text = build_text(architecture, token_ids, learned)
        self.enhancer = build_enhancer(architecture.enhancer, architecture.text_width)
        head, text_width, classes = architecture.head, architecture.text_width, architecture.classes
        self.pixel_decoder = PixelDecoder(head, self.neck.channels, text_width, classes)
        self.mask_decoder = MaskDecoder(head, text_width, classes, linked=architecture.matched)

    @property
    def towers(self) -> list[Tower]:
        """The towers that there are, the VFM first."""
        return [getattr(self, name) for name in self.architecture.tower_names]

    def encode(self, pictures: Tensor) -> Encoded:
        """(batch, 3, H, W) RGB 0..255 -> pyramid and joint embedding."""
        towers, size = self.towers, (pictures.shape[2], pictures.shape[3])
        states = self._side_by_side([partial(tower.embed, pictures) for tower in towers])
        taps = {}
        for stage in range(len(towers[0].widths)):
            states = self._side_by_side([
                partial(tower.stage, stage, state) for tower, state in zip(towers, states, strict=True)
            ])  # fmt: skip
            if str(stage) in self.fusion:
                tokens = [tower.tokens(state) for tower, state in zip(towers, states, strict=True)]
                grid = towers[-1].grid(states[-1], size).shape[-2:]
                mixed = self.fusion[str(stage)](tokens, grid)
                states = [tower.with_tokens(*pair) for tower, *pair in zip(towers, states, mixed, strict=True)]
            if stage in self.neck.taps:
                taps[stage] = torch.cat(
                    [tower.grid(state, size) for tower, state in zip(towers, states, strict=True)], 1
                )
        tokens = [tower.tokens(state) for tower, state in zip(towers, states, strict=True)]
        height, width = towers[-1].grid(states[-1], size).shape[-2:]
        picture = None if self.architecture.matched else join(self.joint, towers, tokens)  # no text, no text space
        return Encoded(self.neck(taps), tokens, picture, (height, width))

    def _side_by_side(self, works: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
        """What the towers do between two fusers: on a GPU at the same time, if there is a stream for the second."""
        if self.second_stream is None or len(works) == 1 or fused.is_plain():
            return [work() for work in works]
        main = torch.cuda.current_stream(self.second_stream.device)
        self.second_stream.wait_stream(main)
        with torch.cuda.stream(self.second_stream):
            second = works[1]()
        first = works[0]()
        main.wait_stream(self.second_stream)
        return [first, second]

    def forward(self, pictures: Tensor) -> Output:
        """(batch, 3, H, W) RGB 0..255 -> everything that training and parity look at."""
        encoded = self.encode(pictures)
        text = self.text()
        queries = self.enhancer(text.expand(len(pictures), -1, -1), encoded.picture)
        features = self.pixel_decoder(encoded.pyramid, queries)
        predictions = self.mask_decoder(features, queries, every=True)
        scores = logits = None
        if encoded.picture is not None:
            scores = score_map(encoded.picture, queries, encoded.grid)
            logits = self.architecture.score_scale * scores.float() + self.architecture.score_bias
        return Output(encoded, text, queries, features, predictions, scores, logits)

    def predict(self, pictures: Tensor) -> Prediction:
        """(batch, 3, H, W) RGB 0..255 -> the last prediction alone; what inference needs."""
        return self.decode(self.encode(pictures))

    def decode(self, encoded: Encoded) -> Prediction:
        """The last prediction from what `encode` gave."""
        queries = self.enhancer(self.text().expand(len(encoded.pyramid[0]), -1, -1), encoded.picture)
        features = self.pixel_decoder(encoded.pyramid, queries)
        last: Prediction = self.mask_decoder(features, queries, every=False)[-1]
        return last
