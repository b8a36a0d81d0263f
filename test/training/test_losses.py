"""The losses against numbers worked by hand and torch's own cross entropy; the goldens are in test_train_parity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mfuser_ros.training import losses
from mfuser_ros.training.replay import published_targets
from mfuser_ros.training.targets import Targets, class_targets, draw_points

GOLDEN = Path(__file__).parents[1] / "golden"


def test_points_of_absent_masks_have_no_effect() -> None:
    tensors = load_file(GOLDEN / "unit_tqdm_loss_empty_one.safetensors")
    classes = class_targets(published_targets(tensors["in.gt_semantic_seg"][:, 0], 6))
    logits = torch.stack([tensors["in.mask.0"]])
    first, second = torch.rand(1, 2, 6, 48, 2), torch.rand(1, 2, 6, 48, 2)
    second[:, classes.positive] = first[:, classes.positive]

    one, two = (losses.mask_loss(logits, classes, points) for points in (first, second))

    torch.testing.assert_close(one.bce, two.bce)
    torch.testing.assert_close(one.dice, two.dice)
    assert not classes.positive[1].any()  # the second picture has no label at all


def test_unlabelled_pixels_are_left_out_of_mask_losses_when_asked() -> None:
    label = torch.tensor([[[0, 255], [0, 255]]])
    classes = class_targets(published_targets(label, 1))
    points = torch.tensor([[0.25, 0.25], [0.75, 0.25]]).expand(1, 1, 1, 2, 2)  # a labelled and an unlabelled pixel
    logits = torch.tensor([[[[[20.0, 20.0], [20.0, 20.0]]]]])  # right on the left half, "wrong" on the right one

    published = losses.mask_loss(logits, classes, points)
    skipping = losses.mask_loss(logits, classes, points, label != 255)

    assert published.bce.item() == pytest.approx(10.0)  # (0 + 20) / 2
    assert skipping.bce.item() == pytest.approx(0.0, abs=1e-6)
    assert published.dice.item() == pytest.approx(1 - 3 / 4)  # p = 1, 1; t = 1, 0
    assert skipping.dice.item() == pytest.approx(0.0, abs=1e-6)


def test_coarse_labels_decide_only_what_they_can() -> None:
    # classes a, b belong to label 0; c alone to label 1; d alone to label 2
    membership = torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]], dtype=torch.bool)
    label = torch.tensor([[[0, 0], [1, 255]]])
    targets = Targets(label, membership, torch.ones(1, 3), torch.tensor([True]))

    classes = class_targets(targets)

    assert classes.positive.tolist() == [[False, False, True, False]]
    assert classes.negative.tolist() == [[False, False, False, True]]
    assert classes.mask[0, 2].tolist() == [[0, 0], [1, 0]]
    unsure = class_targets(Targets(label, membership, torch.ones(1, 3), torch.tensor([False])))
    assert not unsure.positive.any()
    assert not unsure.negative.any()


def test_marginal_adds_the_scores_of_a_label_and_weighs_pixels() -> None:
    membership = torch.tensor([[[1, 1, 0], [0, 0, 1], [0, 0, 0]]], dtype=torch.bool)
    targets = Targets(torch.tensor([[[0, 1, 255]]]), membership, torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([True]))
    scores = torch.tensor([[[[0.1, 0.2, 0.0]], [[0.2, 0.1, 0.0]], [[0.1, 0.1, 0.0]]]])  # (1, 3, 1, 3)

    loss = losses.marginal_loss(scores, targets)

    expected = (1 * -torch.tensor(0.3 / 0.4).log() + 3 * -torch.tensor(0.1 / 0.4).log()) / 4
    torch.testing.assert_close(loss, expected)


def test_marginal_of_vanishing_scores_is_finite() -> None:
    scores = torch.zeros(1, 2, 1, 1, requires_grad=True)
    targets = published_targets(torch.zeros(1, 1, 1), 2)
    losses.marginal_loss(scores, targets).backward()
    assert torch.isfinite(scores.grad).all()


def test_alignment_is_cross_entropy_averaged_over_all_pixels() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 5, 3, 4, generator=generator) * 10
    label = torch.randint(0, 5, (2, 12, 16), generator=generator)
    label[0, :4] = 255

    ours = losses.alignment_loss(logits, published_targets(label, 5))

    enlarged = torch.nn.functional.interpolate(logits, (12, 16), mode="bilinear")
    reference = torch.nn.functional.cross_entropy(enlarged, label, ignore_index=255, reduction="none").mean()
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)


def test_points_gather_where_the_mask_is_unsure() -> None:
    column = torch.linspace(-8, 8, 32)
    logits = column.expand(3, 32, 32)  # zero crossing in the middle column

    points = draw_points(logits, 64)

    assert points.shape == (3, 64, 2)
    assert points.min() >= 0
    assert points.max() <= 1
    assert (points[:, :48, 0] - 0.5).abs().mean() < 0.2  # uniform points would have 0.25
    assert (points[:, 48:, 0] - 0.5).abs().mean() > 0.15
