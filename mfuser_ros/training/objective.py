"""The sum that training minimises: MFuser's own losses, the marginal on the scores, the alignment with the text."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.network.model import Output, Prediction, assemble
from mfuser_ros.training import processes
from mfuser_ros.training.config import LossConfig
from mfuser_ros.training.draws import Draws
from mfuser_ros.training.losses import alignment_loss, class_loss, marginal_loss, mask_loss
from mfuser_ros.training.matching import match, matched_labels
from mfuser_ros.training.regularisers import Drift
from mfuser_ros.training.targets import Targets, class_targets, draw_points, fixed_labels

STRIDE = 4  # of the masks of the preset `small`


class Terms(NamedTuple):
    """Losses of one step, () each; all but the total are unweighted and belong to the last prediction."""

    total: Tensor
    marginal: Tensor
    classes: Tensor
    mask: Tensor
    dice: Tensor
    alignment: Tensor
    language: Tensor
    vision: Tensor


def objective(
    output: Output,
    targets: Targets,
    config: LossConfig,
    *,
    matched: bool = False,
    drift: Drift | None = None,
    draws: Draws | None = None,
) -> Terms:
    """Losses of a batch in float32, whatever the network ran in.

    The weighted losses of all predictions are averaged (or added): the last counts 1, each one before
    `config.auxiliary`. The last prediction's scores are compared at full size, as they are used; those of the others
    with every `STRIDE`-th label.

    Args:
        output: of the network.
        targets: what the pictures show.
        config: weights.
        matched: queries are matched with the classes; else query k stands for class k (spec 6.1).
        drift: what tqdm's regularisers weigh; None: they are 0.
        draws: of this process's samples; None: of a batch that is all here.
    """
    with torch.autocast(targets.label.device.type, enabled=False):
        predictions = output.predictions
        class_logits = torch.stack([prediction.class_logits.float() for prediction in predictions])
        mask_logits = torch.stack([prediction.mask_logits.float() for prediction in predictions])
        draws = draws or Draws([len(targets.label)], targets.label.device)
        classes = class_targets(targets)
        labelled = targets.valid if config.unlabelled == "skip" else None
        labels, of_classes = fixed_labels(classes), mask_logits  # (L, B, K, h, w)
        if matched:
            queries = match(class_logits, mask_logits, classes, config, labelled, draws)
            labels = matched_labels(classes, queries, mask_logits.shape[2])
            of_classes = mask_logits.gather(2, queries[..., None, None].expand(*queries.shape, *mask_logits.shape[3:]))
        L, B, K, h, w = of_classes.shape
        with torch.no_grad():
            points = draw_points(
                of_classes.reshape(-1, h, w),
                config.points,
                rand=lambda count: draws.rand(L, K, count, 2).transpose(0, 1).reshape(L * B * K, count, 2),
            ).view(L, B, K, config.points, 2)
        masks = mask_loss(of_classes, classes, points, labelled)
        class_terms = class_loss(class_logits, labels)
        coarse = targets.strided(STRIDE)
        nothing = class_terms.new_zeros(())
        marginal = nothing.expand(L)
        if config.marginal:
            scores = [assemble(Prediction(c, m)) for c, m in zip(class_logits, mask_logits, strict=True)]
            earlier = [marginal_loss(_enlarged(score, coarse), coarse) for score in scores[:-1]]
            probability = scores[-1] / scores[-1].sum(1, keepdim=True).clamp_min(1e-30)
            marginal = torch.stack([*earlier, marginal_loss(_enlarged(probability, targets), targets)])
        per_prediction = (
            config.marginal * marginal
            + config.classes * class_terms
            + config.mask * masks.bce
            + config.dice * masks.dice
        )  # (L,)
        seen = targets.strided(config.alignment_stride)
        alignment = nothing if output.score_logits is None else alignment_loss(output.score_logits, seen)
        language, vision = (term / processes.count() for term in drift or (nothing, nothing))
        before = config.auxiliary * per_prediction[:-1].sum()
        weights = 1 + config.auxiliary * (L - 1) if config.total == "mean" else 1
        total = (per_prediction[-1] + before) / weights
        total = total + config.alignment * alignment + config.language * language + config.vision * vision
        return Terms(total, marginal[-1], class_terms[-1], masks.bce[-1], masks.dice[-1], alignment, language, vision)


def _enlarged(scores: Tensor, targets: Targets) -> Tensor:
    """(B, K, h, w) scores at the size of the labels, enlarged as inference does it where they are not."""
    size = targets.label.shape[1:]
    return scores if scores.shape[2:] == size else F.interpolate(scores, size, mode="bilinear")
