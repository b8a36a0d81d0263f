"""The sum that training minimises: MFuser's own losses, the marginal on the scores, the alignment with the text."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros.network.model import Output, Prediction, assemble
from mfuser_ros.training.config import LossConfig
from mfuser_ros.training.draws import Draws
from mfuser_ros.training.losses import alignment_loss, class_loss, marginal_loss, mask_loss
from mfuser_ros.training.targets import Targets, class_targets, draw_points


class Terms(NamedTuple):
    """Losses of one step, () each; all but the total are unweighted and belong to the last prediction."""

    total: Tensor
    marginal: Tensor
    classes: Tensor
    mask: Tensor
    dice: Tensor
    alignment: Tensor


def objective(output: Output, targets: Targets, config: LossConfig, draws: Draws | None = None) -> Terms:
    """Losses of a batch in float32, whatever the network ran in.

    The weighted losses of all predictions are averaged (or added): the last counts 1, each one before
    `config.auxiliary`. The last prediction is compared at full size, as it is used; the others at the masks' size.
    `draws` are those of this process's samples; None: of a batch that is all here.
    """
    with torch.autocast(targets.label.device.type, enabled=False):
        predictions = output.predictions
        class_logits = torch.stack([prediction.class_logits.float() for prediction in predictions])
        mask_logits = torch.stack([prediction.mask_logits.float() for prediction in predictions])
        L, B, K, h, w = mask_logits.shape
        classes = class_targets(targets)
        with torch.no_grad():
            draws = draws or Draws([B], mask_logits.device)
            points = draw_points(
                mask_logits.reshape(-1, h, w),
                config.points,
                rand=lambda count: draws.rand(L, K, count, 2).transpose(0, 1).reshape(L * B * K, count, 2),
            ).view(L, B, K, config.points, 2)
        labelled = targets.valid if config.unlabelled == "skip" else None
        masks = mask_loss(mask_logits, classes, points, labelled)
        class_terms = class_loss(class_logits, classes)
        marginal = _marginals(class_logits, mask_logits, targets) if config.marginal else class_terms.new_zeros(L)
        per_prediction = (
            config.marginal * marginal
            + config.classes * class_terms
            + config.mask * masks.bce
            + config.dice * masks.dice
        )  # (L,)
        alignment = alignment_loss(output.score_logits, targets.strided(config.alignment_stride))
        earlier = config.auxiliary * per_prediction[:-1].sum()
        weights = 1 + config.auxiliary * (L - 1) if config.total == "mean" else 1
        total = (per_prediction[-1] + earlier) / weights + config.alignment * alignment
        return Terms(total, marginal[-1], class_terms[-1], masks.bce[-1], masks.dice[-1], alignment)


def _marginals(class_logits: Tensor, mask_logits: Tensor, targets: Targets) -> Tensor:
    """(L,) marginal losses of the predictions."""
    scores = [assemble(Prediction(c, m)) for c, m in zip(class_logits, mask_logits, strict=True)]
    coarse = targets.sized(*mask_logits.shape[3:])
    probability = scores[-1] / scores[-1].sum(1, keepdim=True).clamp_min(1e-30)
    full = F.interpolate(probability, targets.label.shape[1:], mode="bilinear")  # as inference enlarges it
    return torch.stack([marginal_loss(score, coarse) for score in scores[:-1]] + [marginal_loss(full, targets)])
