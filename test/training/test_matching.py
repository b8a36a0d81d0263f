"""Matching of queries with classes: against SciPy, against costs worked by hand, and what each query then learns."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from mfuser_ros.training import losses
from mfuser_ros.training.config import LossConfig
from mfuser_ros.training.matching import assign, match, matched_labels, pair_costs
from mfuser_ros.training.targets import ClassTargets, Targets, class_targets

WEIGHTS = LossConfig(
    marginal=0, classes=2, mask=5, dice=5, alignment=0, auxiliary=1, points=64, frequency_power=0,
    unlabelled="background",
)  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "columns", "share"), [(19, 100, 0.5), (19, 19, 1.0), (19, 20, 0.9), (5, 7, 0.0), (1, 1, 1.0), (1, 4, 1.0)]
)
def test_assignment_is_scipys(rows: int, columns: int, share: float) -> None:
    generator = torch.Generator().manual_seed(rows * columns)
    cost = torch.randn(30, rows, columns, dtype=torch.float64, generator=generator)
    cost[:10] = (cost[:10] + 3).abs().square()  # the scale and the sign must not matter
    wanted = torch.rand(30, rows, generator=generator) < share

    chosen = assign(cost, wanted)

    for matrix, take, columns_of in zip(cost, wanted, chosen, strict=True):
        assert len(set(columns_of.tolist())) == rows  # no query twice
        expected = linear_sum_assignment(matrix[take].numpy())[1]
        assert columns_of[take].tolist() == expected.tolist()


def test_assignment_of_equal_costs_is_as_cheap_as_scipys() -> None:
    generator = torch.Generator().manual_seed(1)
    cost = torch.randint(0, 3, (40, 6, 8), generator=generator).double()  # many ties

    chosen = assign(cost, torch.ones(40, 6, dtype=torch.bool))

    for matrix, columns in zip(cost, chosen, strict=True):
        rows, expected = linear_sum_assignment(matrix.numpy())
        assert matrix[torch.arange(6), columns].sum() == matrix[rows, expected].sum()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_costs_that_are_no_numbers_still_give_queries(bad: float) -> None:
    cost = torch.full((2, 3, 4), bad)
    columns = assign(cost, torch.ones(2, 3, dtype=torch.bool))
    assert columns.min() >= 0
    assert columns.max() < 4


def _two_classes() -> tuple[torch.Tensor, torch.Tensor, ClassTargets]:
    """A picture whose left half is class 0 and right half class 1 of three; four queries, of which 3 and 1 see them."""
    label = torch.tensor([[[0, 0, 1, 1]]]).expand(1, 4, 4)
    targets = Targets(label, torch.eye(3, dtype=torch.bool)[None], torch.ones(1, 3), torch.ones(1, dtype=torch.bool))
    masks = torch.full((1, 1, 4, 4, 4), -20.0)
    masks[0, 0, 3, :, :2] = 20
    masks[0, 0, 1, :, 2:] = 20
    return torch.zeros(1, 1, 4, 4), masks, class_targets(targets)


def test_costs_by_hand() -> None:
    class_logits, masks, classes = _two_classes()
    points = torch.tensor([[[0.125, 0.5], [0.875, 0.5]]])  # the middle of the left and of the right column

    cost = pair_costs(class_logits, masks, classes, WEIGHTS, points)

    likely = -2 * 0.25  # four equal logits
    # class 0 is at one of two points. Query 3 agrees: dice 1 - 3 / 3 = 0. Query 1 says the opposite: cross entropy 20,
    # dice 1 - 1 / 3. Queries 0 and 2 see nothing: cross entropy 20 at one of two points, dice 1 - 1 / 2.
    expected = torch.tensor([10 * 5 + 5 / 2, 20 * 5 + 10 / 3, 10 * 5 + 5 / 2, 0]) + likely
    torch.testing.assert_close(cost[0, 0, 0], expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(cost[0, 0, 1, [1, 3]], expected[[3, 1]], atol=1e-4, rtol=1e-5)


def test_pixels_without_a_label_cost_nothing_when_left_out() -> None:
    class_logits, masks, classes = _two_classes()
    points = torch.tensor([[[0.125, 0.5], [0.875, 0.5]]])
    labelled = torch.tensor([[[True, True, False, False]]]).expand(1, 4, 4)

    cost = pair_costs(class_logits, masks, classes, WEIGHTS, points, labelled)

    # only the left point counts, so a query that is right there costs its probability alone
    torch.testing.assert_close(cost[0, 0, 0], torch.tensor([105 - 2.5, 105 - 2.5, 105 - 2.5, 0]) - 0.5)


def test_queries_that_see_a_class_learn_it_and_the_others_no_object() -> None:
    class_logits, masks, classes = _two_classes()
    queries = match(class_logits, masks, classes, WEIGHTS)
    assert queries[0, 0, :2].tolist() == [3, 1]

    labels = matched_labels(classes, queries, 4)

    assert labels.target.tolist() == [[[3, 1, 3, 0]]]  # 3 is "no object"
    loss = losses.class_loss(class_logits.requires_grad_(), labels)
    assert loss.item() == pytest.approx(torch.tensor(4.0).log().item())  # each of four answers is as likely
    loss.backward()
    pull = class_logits.grad[0, 0].argmin(-1).tolist()
    assert pull == [3, 1, 3, 0]


def test_each_prediction_is_matched_by_itself() -> None:
    class_logits, masks, classes = _two_classes()
    swapped = masks.flip(2)  # queries 0 and 2 see the classes
    queries = match(class_logits.expand(2, -1, -1, -1), torch.cat([masks, swapped]), classes, WEIGHTS)
    assert queries[:, 0, :2].tolist() == [[3, 1], [0, 2]]


def test_queries_without_a_class_do_not_count_where_labels_leave_something_open() -> None:
    # classes 0 and 1 share label 0, class 2 has label 1 of its own
    membership = torch.tensor([[[1, 1, 0], [0, 0, 1]]], dtype=torch.bool).expand(2, -1, -1)
    label = torch.tensor([[[0, 1]], [[1, 1]]])
    classes = class_targets(Targets(label, membership, torch.ones(2, 2), torch.ones(2, dtype=torch.bool)))

    labels = matched_labels(classes, torch.tensor([[[0, 1, 2], [0, 1, 2]]]), 5)

    assert labels.positive[0].tolist() == [[False, False, True, False, False]] * 2
    assert not labels.negative[0, 0].any()  # one of the others may rightly see class 0 or 1
    assert labels.negative[0, 1].tolist() == [True, True, False, True, True]
