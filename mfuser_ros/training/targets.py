"""What the losses aim at: labels of a batch, and what each label id means in its sample's own set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.vocabulary import UNKNOWN


@dataclass(frozen=True)
class Targets:
    """Labels of B crops. Everything is a tensor of fixed shape, so that a CUDA graph can hold it."""

    label: Tensor  # (B, H, W) int64: label ids of the sample's set, 255 ignored
    membership: Tensor  # (B, G, K) bool: class k belongs to label id g
    weight: Tensor  # (B, G) float32: weight of a pixel with label id g in the marginal loss
    presence: Tensor  # (B,) bool: a class without pixels is absent from the picture

    def strided(self, stride: int) -> Targets:
        """The same with every `stride`-th pixel of the labels, taken from the middle of its cell."""
        start = (stride - 1) // 2
        return Targets(self.label[:, start::stride, start::stride], self.membership, self.weight, self.presence)

    @property
    def valid(self) -> Tensor:
        """(B, H, W) bool: pixels that carry a label."""
        return self.label != UNKNOWN

    @property
    def index(self) -> Tensor:
        """(B, H, W) int64: the label, 0 where there is none, so that it can index a table."""
        return torch.where(self.valid, self.label, 0)

    def members(self) -> Tensor:
        """(B, K, H, W) bool: the classes that the label of a pixel allows; meaningless where there is no label."""
        B, H, W = self.label.shape
        K = self.membership.shape[2]
        index = self.index.reshape(B, 1, H * W).expand(B, K, H * W)
        return self.membership.transpose(1, 2).gather(2, index).reshape(B, K, H, W)

    def pixel_weight(self) -> Tensor:
        """(B, H, W) float32: weight of each pixel, 0 where there is no label."""
        B, H, W = self.label.shape
        weight = self.weight.gather(1, self.index.reshape(B, H * W)).reshape(B, H, W)
        return weight * self.valid


def crop_targets(label: Tensor, membership: Tensor, weight: Tensor, presence: Tensor) -> Targets:
    """What B crops of one set show: their (B, h, w) uint8 labels, and the set's own tables without the first axis."""
    B = len(label)
    return Targets(label.long(), membership.expand(B, -1, -1), weight.expand(B, -1), presence.expand(B))


@dataclass(frozen=True)
class ClassTargets:
    """Which classes pictures show, and where (spec 6.1)."""

    positive: Tensor  # (B, K) bool: class k is in the picture and its mask is known
    negative: Tensor  # (B, K) bool: class k is known to be absent; neither: nothing is known, no loss
    mask: Tensor  # (B, K, H, W) float32, 0 or 1: mask of each positive class


@dataclass(frozen=True)
class QueryLabels:
    """What each query is to say; the first axis, of predictions, may be 1 for all of them."""

    target: Tensor  # (L, B, Q) int64: class, or C for "no object"
    positive: Tensor  # (L, B, Q) bool: is to say a class
    negative: Tensor  # (L, B, Q) bool: is to say "no object"; neither: does not count


def fixed_labels(classes: ClassTargets) -> QueryLabels:
    """What each query is to say where query k stands for class k (spec 6.1)."""
    C = classes.positive.shape[1]
    own = torch.arange(C, device=classes.positive.device)
    target = torch.where(classes.positive, own, C)
    return QueryLabels(target[None], classes.positive[None], classes.negative[None])


def class_targets(targets: Targets) -> ClassTargets:
    """Presence and mask of each class, where the labels decide them.

    A label with one member gives that class a mask. A label with several says only that one of them is there. A class
    is absent if it belongs to some label and none of its labels has a pixel. With 19 labels of one member each these
    are the published targets: every class is positive or negative.
    """
    ids = torch.arange(targets.membership.shape[1], device=targets.label.device)
    pixels = targets.label[:, None] == ids[:, None, None]  # (B, G, H, W)
    seen = pixels.flatten(2).any(2)  # (B, G)
    single = targets.membership.sum(2) == 1  # (B, G)
    alone = targets.membership & single[..., None]  # (B, G, K)
    known = targets.presence[:, None]
    positive = (alone & seen[..., None]).any(1) & known
    possible = (targets.membership & seen[..., None]).any(1)
    negative = targets.membership.any(1) & ~possible & known
    mask = torch.einsum("bgk,bghw->bkhw", alone.float(), pixels.float())
    return ClassTargets(positive, negative, mask)


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of (N, h, w) maps at (N, P, 2) points (x, y in 0..1 over the whole map), zeros outside: (N, P).

    Source: spec 6.2 (align_corners False).
    """
    grid = 2 * points[:, :, None] - 1
    return F.grid_sample(maps[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0, :, 0]


def draw_points(
    logits: Tensor,
    count: int,
    oversample: float = 3.0,
    uncertain: float = 0.75,
    *,
    rand: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Points (N, count, 2) for the mask losses of (N, h, w) logits: mostly where the logit is near zero.

    Of `oversample * count` uniform points the `uncertain * count` with the smallest |logit| stay; the rest is uniform.
    `rand` gives (N, points, 2) uniform numbers; None: torch's own.

    Source: spec 6.2 (PointRend, Kirillov et al., CVPR 2020).
    """
    N = len(logits)
    kept = int(uncertain * count)
    if rand is None:

        def rand(points: int) -> Tensor:
            return torch.rand(N, points, 2, device=logits.device)

    candidates = rand(int(oversample * count))
    return choose_points(logits, candidates, rand(count - kept), kept)


def choose_points(logits: Tensor, candidates: Tensor, others: Tensor, kept: int) -> Tensor:
    """Points (N, P, 2): those `kept` of the candidates whose |logit| is smallest, in any order, then the others.

    Args:
        logits: (N, h, w).
        candidates: (N, candidates, 2).
        others: (N, P - kept, 2).
        kept: how many of the candidates.
    """
    doubt = -sample_points(logits, candidates).abs()
    best = doubt.topk(kept, dim=1, sorted=False).indices  # (N, kept)
    return torch.cat([candidates.gather(1, best[..., None].expand(-1, -1, 2)), others], 1)
