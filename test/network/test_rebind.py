"""A network with other classes than it was trained for."""

import copy
from pathlib import Path

import pytest
import torch

from mfuser_ros.checkpoints import rebuild
from mfuser_ros.checkpoints.golden import read_golden
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.mask_decoder import assemble
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.rebind import ReboundClasses, nearest_classes, rebind

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def network() -> MFuser:
    return rebuild.mfuser(read_golden(GOLDEN / "model_eva_tiny"))


def rebound(network: MFuser, nearest: list[int]) -> MFuser:
    """The classes `nearest`, with their own words."""
    other = copy.deepcopy(network)
    other.text.set_token_ids(network.text.ids[nearest])
    rebind(other, nearest)
    return other


@torch.no_grad()
def test_classes_in_another_order_have_the_same_scores(network):
    order = list(reversed(range(19)))
    network.enhancer.gamma.zero_()  # it scans the words in their order; all else is blind to it
    picture = torch.rand(1, 3, 60, 60, generator=torch.Generator().manual_seed(0)) * 255

    ours = assemble(rebound(network, order).predict(picture))

    torch.testing.assert_close(ours, assemble(network.predict(picture))[:, order], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_probabilities_of_new_classes_are_those_of_the_trained_ones():
    """By hand: trained classes 0, 1, 2 and no object; new classes stand for 1, 1 and 0."""
    trained = torch.nn.Linear(4, 4, bias=False)
    trained.weight.copy_(torch.eye(4))
    probability = torch.tensor([0.4, 0.3, 0.2, 0.1])
    state = probability.log().expand(1, 3, 4)

    ours = ReboundClasses(trained, [1, 1, 0])(state).softmax(-1)[0]

    expected = [
        [0.3, 0.0, 0.4, 0.3],  # its own class; nothing for the one that shares it; trained class 2 is no object
        [0.0, 0.3, 0.4, 0.3],
        [0.15, 0.15, 0.4, 0.3],  # to another query the two share evenly
    ]
    torch.testing.assert_close(ours, torch.tensor(expected))


def test_nearest_is_by_direction():
    trained = torch.tensor([[1.0, 0], [0, 1]])
    assert nearest_classes(torch.tensor([[0.1, 5], [9, 3], [0.2, 0.1]]), trained) == [1, 0, 0]


@pytest.mark.parametrize("nearest", [[], [19], [-1]])
def test_class_that_the_network_does_not_have_is_refused(network, nearest):
    with pytest.raises(ConfigurationError, match="the network has 0 to 18"):
        rebind(network, nearest)


def test_classes_are_changed_once(network):
    rebind(network, [0, 1])
    with pytest.raises(ConfigurationError, match="were changed before"):
        rebind(network, [0, 1])
