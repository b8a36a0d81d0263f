"""The losses: MFuser's own (spec 6.2) and the marginal that trains on coarse labels.

Nothing here selects by value: absent classes are masked out, so shapes never depend on the labels and a CUDA graph
can hold the whole. L is the number of predictions (before the first and after each query layer), the last the final.
All run in float32 whatever the network ran in.

Sums are divided by what all processes counted together, so the losses of the processes add up to those of one process
with the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.training import processes
from mfuser_ros.training.targets import ClassTargets, QueryLabels, Targets, sample_points

NO_OBJECT_WEIGHT = 0.1
_TINY = 1e-30


def class_loss(class_logits: Tensor, labels: QueryLabels) -> Tensor:
    """Cross entropy of each query against its class or "no object", for each prediction.

    Args:
        class_logits: (L, B, Q, K + 1).
        labels: queries that are neither positive nor negative do not count.

    Returns:
        (L,) sum of weighted cross entropies over the sum of weights; no-object weighs 0.1.
    """
    weight = labels.positive.float() + NO_OBJECT_WEIGHT * labels.negative.float()
    nll = -F.log_softmax(class_logits.float(), -1)  # (L, B, Q, K + 1)
    nll = nll.gather(3, labels.target[..., None].expand(*nll.shape[:3], 1))[..., 0]
    return (weight * nll).sum((1, 2)) / processes.summed(weight.sum((1, 2))).clamp_min(_TINY)


@dataclass(frozen=True)
class MaskLoss:
    """Losses of the masks at sampled points, for each prediction."""

    bce: Tensor  # (L,)
    dice: Tensor  # (L,)


def mask_loss(mask_logits: Tensor, classes: ClassTargets, points: Tensor, labelled: Tensor | None = None) -> MaskLoss:
    """Binary cross entropy and dice of the positive masks at points.

    Args:
        mask_logits: (L, B, K, h, w).
        classes: masks (B, K, H, W) of any size; only positive ones count.
        points: (L, B, K, P, 2), x and y in 0..1; those of masks that are not positive are of no effect.
        labelled: (B, H, W) bool; pixels where it is false are left out. None: they are background (as published, Q39).

    Returns:
        Sums over masks and means over points, divided by the number of positive masks in the batch (at least 1).
        Dice is the published one: 1 - (2 sum p t + 1) / (sum p + sum t + 1).
    """
    L, B, K, P, _ = points.shape
    logits = sample_points(mask_logits.float().reshape(L * B * K, *mask_logits.shape[3:]), points.reshape(-1, P, 2))
    logits = logits.reshape(L, B, K, P)
    by_sample = points.permute(1, 2, 0, 3, 4)  # (B, K, L, P, 2): one mask is read at the points of all predictions
    target = sample_points(classes.mask.flatten(0, 1), by_sample.reshape(B * K, L * P, 2))
    target = target.reshape(B, K, L, P).permute(2, 0, 1, 3)
    if labelled is None:
        weight = torch.ones_like(target)
    else:
        weight = sample_points(labelled.float(), by_sample.reshape(B, K * L * P, 2))
        weight = weight.reshape(B, K, L, P).permute(2, 0, 1, 3)
    positive = classes.positive.float()  # (B, K)
    masks = processes.summed(positive.sum()).clamp_min(1)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    bce = (weight * bce).sum(3) / weight.sum(3).clamp_min(1)
    probability, target = weight * logits.sigmoid(), weight * target
    overlap = 2 * (probability * target).sum(3) + 1
    dice = 1 - overlap / (probability.sum(3) + target.sum(3) + 1)
    return MaskLoss((positive * bce).sum((1, 2)) / masks, (positive * dice).sum((1, 2)) / masks)


def marginal_loss(scores: Tensor, targets: Targets) -> Tensor:
    """Minus the log of the probability that the class is one of the label's members, p_c = s_c / sum_k s_k.

    Args:
        scores: (B, K, H, W) assembled scores s >= 0 (spec 5.5), float32.
        targets: labels of the same size.

    Returns:
        () mean over labelled pixels, weighted by `targets.weight`; 0 without any label.
    """
    own = torch.where(targets.members(), scores, 0).sum(1)  # (B, H, W)
    nll = scores.sum(1).clamp_min(_TINY).log() - own.clamp_min(_TINY).log()
    weight = targets.pixel_weight()
    return (weight * nll).sum() / processes.summed(weight.sum()).clamp_min(_TINY)


def alignment_loss(score_logits: Tensor, targets: Targets) -> Tensor:
    """Cross entropy of the scaled cosine map between picture and text (spec 4.5, 6.2).

    Args:
        score_logits: (B, K, h, w) scaled cosine; enlarged to the labels' size (bilinear, align_corners False).
        targets: labels; with several members the log of the sum of their probabilities counts.

    Returns:
        () mean over all pixels; those without a label add 0 but count (as published, Q21).
    """
    logits = F.interpolate(score_logits.float(), targets.label.shape[1:], mode="bilinear")
    own = torch.where(targets.members(), logits, -1e4).logsumexp(1)
    return torch.where(targets.valid, logits.logsumexp(1) - own, 0).mean() / processes.count()
