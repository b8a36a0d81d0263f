"""Which query a class is given where queries stand for none: the assignment of least cost (Hungarian matching).

All of it runs on the device of its tensors, with a number of operations that only shapes decide, so that a CUDA graph
can hold it. L is the number of predictions, B of pictures, C of classes, Q of queries.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.training.config import LossConfig
from mfuser_ros.training.draws import Draws
from mfuser_ros.training.targets import ClassTargets, QueryLabels, sample_points


@torch.no_grad()
def match(
    class_logits: Tensor,
    mask_logits: Tensor,
    classes: ClassTargets,
    config: LossConfig,
    labelled: Tensor | None = None,
    draws: Draws | None = None,
) -> Tensor:
    """The query that each class is given, by the losses that the pair would have at shared random points.

    Args:
        class_logits: (L, B, Q, C + 1).
        mask_logits: (L, B, Q, h, w).
        classes: which classes are there, and their masks.
        config: weights of the costs, which are those of the losses, and the number of points.
        labelled: (B, H, W) bool; pixels where it is false are left out. None: they are background.
        draws: of this process's samples; None: of a batch that is all here.

    Returns:
        (L, B, C) indices of queries, each used once; those of absent classes mean nothing.

    Source: Cheng et al., Mask2Former (2022), section 3.2 and appendix; weights of spec of MFuser section 10.2.
    """
    draws = draws or Draws([class_logits.shape[1]], class_logits.device)
    points = draws.rand(config.points, 2)
    cost = pair_costs(class_logits, mask_logits, classes, config, points, labelled)
    positive = classes.positive.expand(len(cost), -1, -1)
    return assign(cost.flatten(0, 1), positive.flatten(0, 1)).reshape(positive.shape)


def pair_costs(
    class_logits: Tensor,
    mask_logits: Tensor,
    classes: ClassTargets,
    config: LossConfig,
    points: Tensor,
    labelled: Tensor | None = None,
) -> Tensor:
    """What each class would cost with each query; arguments as of `match`, with `points` (B, P, 2) for all pairs.

    Returns:
        (L, B, C, Q): minus the class's probability, mean cross entropy and dice of the masks at the points, weighted.
    """
    L, B, Q = mask_logits.shape[:3]
    grid = (2 * points - 1).expand(L, -1, -1, -1).flatten(0, 1)[:, :, None]
    maps = mask_logits.float().flatten(0, 1)
    logits = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    logits = logits.reshape(L, B, Q, -1)
    C = classes.mask.shape[1]
    target = sample_points(classes.mask.flatten(0, 1), points.repeat_interleave(C, 0)).reshape(B, C, -1)
    weight = torch.ones_like(target) if labelled is None else sample_points(labelled.float(), points)[:, None]
    seen, unseen = weight * target, weight * (1 - target)  # (B, C, P)
    bce = torch.einsum("lbqp,bcp->lbcq", F.softplus(-logits), seen)
    bce = bce + torch.einsum("lbqp,bcp->lbcq", F.softplus(logits), unseen)
    bce = bce / weight.sum(-1).clamp_min(1)[..., None]
    probability = logits.sigmoid()
    overlap = 2 * torch.einsum("lbqp,bcp->lbcq", probability, seen) + 1
    area = (probability * weight[:, :1]).sum(-1)[:, :, None] + seen.sum(-1)[..., None]  # (L, B, C, Q)
    dice = 1 - overlap / (area + 1)
    likely = class_logits.float().softmax(-1)[..., :-1].transpose(2, 3)  # (L, B, C, Q)
    return config.mask * bce + config.dice * dice - config.classes * likely


@torch.no_grad()
def assign(cost: Tensor, wanted: Tensor) -> Tensor:
    """Columns for the wanted rows of N matrices, each column once, so that the sum of their costs is least.

    Args:
        cost: (N, R, Q) with R <= Q.
        wanted: (N, R) bool; other rows cost nothing and take what is left.

    Returns:
        (N, R) columns. Infinite or missing costs give some columns, and no error.

    Source: shortest augmenting paths, Jonker and Volgenant, Computing 38 (1987); rows enter one by one, and the path
    of row i passes at most i columns that are taken, so that the loops have a fixed length.
    """
    N, R, Q = cost.shape
    device = cost.device
    cost = torch.where(wanted[..., None], cost, 0).double()
    u, v = cost.new_zeros(N, R + 1), cost.new_zeros(N, Q)  # prices of rows and columns
    # row R and column Q stand for "none": they point at each other, so that a finished path goes round in them
    row_of = torch.full((N, Q + 1), R, device=device)
    column_of = torch.full((N, R + 1), Q, device=device)
    for i in range(R):
        distance = cost.new_full((N, Q), torch.inf)
        before = torch.full((N, Q + 1), R, device=device)  # the row from which a column is reached
        passed = torch.zeros(N, Q, dtype=torch.bool, device=device)
        row = torch.full((N, 1), i, device=device)
        least = cost.new_zeros(N, 1)
        end = torch.full((N, 1), Q, device=device)  # the free column where the path ends, once there is one
        for _ in range(i + 1):
            reached = least + cost.gather(1, row[..., None].expand(N, 1, Q))[:, 0] - u.gather(1, row) - v
            nearer = ~passed & (reached < distance)
            distance = torch.where(nearer, reached, distance)
            before[:, :Q] = torch.where(nearer, row, before[:, :Q])
            nearest, column = distance.masked_fill(passed, torch.inf).min(1, keepdim=True)
            searching = end == Q
            owner = row_of.gather(1, column)
            least = torch.where(searching, nearest, least)
            passed = passed.scatter(1, column, passed.gather(1, column) | searching)
            end = torch.where(searching & (owner == R), column, end)
            row = torch.where(searching & (owner != R), owner, row)
        gain = torch.where(passed, least - distance, 0)
        v = v - gain
        u = u.scatter_add(1, row_of[:, :Q], gain)
        u[:, i : i + 1] += least
        column = end
        for _ in range(i + 1):
            row = before.gather(1, column)
            following = column_of.gather(1, row)
            row_of = row_of.scatter(1, column, row)
            column_of = column_of.scatter(1, row, column)
            column = following
    return column_of[:, :R].clamp_max(Q - 1)


def matched_labels(classes: ClassTargets, queries: Tensor, count: int) -> QueryLabels:
    """What each query is to say: the class that was given to it, "no object" to the others.

    Where labels leave open whether a class is in the picture, the queries without a class do not count: one of them
    may rightly see it.

    Args:
        classes: which are there.
        queries: (L, B, C) of `match`.
        count: of the queries, Q.
    """
    L, B, C = queries.shape
    own = torch.arange(C, device=queries.device).expand(L, B, C)
    target = torch.full((L, B, count), C, device=queries.device)
    target = target.scatter(2, queries, torch.where(classes.positive, own, C))
    decided = (classes.positive | classes.negative).all(1)[:, None]  # (B, 1)
    return QueryLabels(target, target < C, (target == C) & decided)
