"""The space that picture and text share: last tokens of both towers -> embeddings as wide as the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.network.config import Architecture
from mfuser_ros.network.tower import Tower


class JointProjection(nn.Module):
    """Sum of the towers' normalised tokens, mapped to the text's width, for towers that bring no such head.

    Source: spec of MFuser section 2.7 (the EVA case), with norms and a map of its own.
    """

    def __init__(self, widths: Mapping[str, int], text_width: int) -> None:
        """Build for towers of these names (`vfm`, `vlm`) and widths."""
        super().__init__()
        self.towers = tuple(widths)
        for tower, width in widths.items():
            self.add_module(f"norm_{tower}", nn.LayerNorm(width))
        for tower, width in widths.items():
            self.add_module(f"head_{tower}", nn.Linear(width, text_width, bias=tower == self.towers[-1]))

    def forward(self, towers: Sequence[Tensor]) -> Tensor:
        """(batch, L, width) tokens of each tower -> (batch, L, text_width)."""
        embeddings: list[Tensor] = [
            self.get_submodule(f"head_{name}")(self.get_submodule(f"norm_{name}")(tokens))
            for name, tokens in zip(self.towers, towers, strict=True)
        ]
        return embeddings[0] if len(embeddings) == 1 else embeddings[0] + embeddings[1]


def build_joint(architecture: Architecture, towers: Mapping[str, Tower]) -> JointProjection | nn.Linear | None:
    """The weights that join the towers' last tokens, beside those of the VLM's own map to text space.

    Without a VLM that has such a map there is a `JointProjection`, without text nothing. CLIP has a linear map, with
    which the VFM's tokens are added before the VLM's last norm, and so has a VFM of another width; EVA02 and SigLIP
    need none: the normed tokens of both are added (spec 2.7).
    """
    if architecture.matched:
        return None
    widths = {name: tower.widths[-1] for name, tower in towers.items()}
    if "vlm" not in towers or not towers["vlm"].text_space:
        return JointProjection(widths, architecture.text_width)
    mapped = architecture.fusion.vfm_bridge or len(set(widths.values())) > 1
    return nn.Linear(widths["vfm"], widths["vlm"]) if mapped else None


def join(joint: JointProjection | nn.Linear | None, towers: Sequence[Tower], tokens: Sequence[Tensor]) -> Tensor:
    """The picture in text space from the last tokens of the towers, the VLM last (spec 2.7).

    Args:
        joint: of `build_joint`.
        towers: one or two.
        tokens: (batch, L, width) of each.

    Returns:
        (batch, 1 + N, text_width): global token, then the grid row by row.
    """
    if isinstance(joint, JointProjection):
        class_token = towers[-1].class_token
        places = tokens[-1].shape[1]
        return with_global_token(joint([_paired(x, places) for x in tokens]), class_token=class_token)
    *others, vlm = tokens
    if joint is not None:  # CLIP, or another width
        return towers[-1].to_text_space(towers[-1].final_norm(vlm + joint(_paired(others[0], vlm.shape[1]))))
    picture = towers[-1].final_norm(vlm)
    for tower, other in zip(towers, others, strict=False):
        picture = picture + _paired(tower.final_norm(other), vlm.shape[1])
    return towers[-1].to_text_space(picture)


def _paired(tokens: Tensor, length: int) -> Tensor:
    """The grid's tokens under those of another tower: a class token that it lacks is dropped, one it has is 0 here."""
    return tokens[:, -length:] if tokens.shape[1] >= length else F.pad(tokens, (0, 0, length - tokens.shape[1], 0))


def with_global_token(joint: Tensor, *, class_token: bool) -> Tensor:
    """(batch, 1 + N, width): the class token first; towers without one get the mean of their grid."""
    return joint if class_token else torch.cat([joint.mean(1, keepdim=True), joint], 1)


def score_map(picture: Tensor, text: Tensor, size: tuple[int, int]) -> Tensor:
    """Cosine similarity (batch, K, h, w) of each place of the picture to each text query.

    Args:
        picture: (batch, 1 + h w, width) global token, then the grid row by row.
        text: (batch, K, width) enhanced text.
        size: h and w of the grid.

    Source: spec of MFuser section 4.5, before the temperature.
    """
    places = F.normalize(picture[:, 1:].float(), dim=-1, eps=1e-12)
    words = F.normalize(text.float(), dim=-1, eps=1e-12)
    similarity: Tensor = words @ places.transpose(1, 2)
    return similarity.view(*similarity.shape[:2], *size)
