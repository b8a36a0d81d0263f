"""MobileNetV2 as a tower, and its weights from files."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mfuser_ros.errors import CheckpointError, ConfigurationError
from mfuser_ros.network.config import TowerConfig
from mfuser_ros.network.tower import Tower, create_network

_HEAD = ("conv_head", "bn2", "global_pool", "classifier")  # parts of timm's MobileNetV2 that no tower needs


class MobileNetV2Tower(Tower):
    """MobileNetV2, group by group, BatchNorm folded into the convolutions: the state is a (B, D, h, w) map.

    Classifier and last 1x1 convolution are left out. The published weights come from TensorFlow: build them with
    ``pad_type="same"``, which pads strided layers at the right and the bottom only; symmetric padding shifts every
    strided layer by a pixel.
    """

    class_token = False

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        if config.stages is not None:
            raise ConfigurationError(f"{config.model}: its stages are its groups of blocks: leave stages out")
        self.config = config
        self.widths = tuple(_out_channels(group) for group in self.net.blocks)
        fold_batch_norm(self.net)
        for name in _HEAD:
            delattr(self.net, name)

    def embed(self, picture: Tensor) -> Tensor:
        state: Tensor = self.net.bn1(self.net.conv_stem(self.normalise(picture)))
        return state

    def stage(self, index: int, state: Tensor) -> Tensor:
        result: Tensor = self.net.blocks[index](state)
        return result

    def tokens(self, state: Tensor) -> Tensor:
        return state.flatten(2).transpose(1, 2)

    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        return tokens.transpose(1, 2).reshape(state.shape)

    def grid(self, state: Tensor, picture_size: tuple[int, int] | None = None) -> Tensor:  # noqa: ARG002  # it is one
        return state

    def final_norm(self, tokens: Tensor) -> Tensor:
        return tokens


def load_mobilenet(tower: MobileNetV2Tower, state_dict: Mapping[str, Tensor]) -> None:
    """Fold a MobileNetV2 with timm's names into a tower.

    Args:
        tower: receives the weights.
        state_dict: weights with BatchNorm. Names may carry the prefix ``backbone.``, as in a segmentation network; its
            other tensors are then left out, as are classifier and last convolution.

    Raises:
        CheckpointError: a tensor is missing, is unknown or has another shape; the text names the first one.
    """
    network = create_network(tower.config)
    for name in _HEAD:
        delattr(network, name)
    prefix = "backbone." if any(key.startswith("backbone.") for key in state_dict) else ""
    given = {
        key[len(prefix) :]: value
        for key, value in state_dict.items()
        if key.startswith(prefix) and not key.startswith(tuple(f"{prefix}{name}." for name in _HEAD))
    }
    expected = network.state_dict()
    counters = {key: value for key, value in expected.items() if key.endswith("num_batches_tracked")}
    for key in sorted(set(expected) - set(counters) - set(given)):
        raise CheckpointError(f"{prefix}{key}: missing from the MobileNetV2 weights: give a timm state dict")
    for key in sorted(set(given) - set(expected)):
        raise CheckpointError(f"{prefix}{key}: unknown to {tower.config.model}: give weights of that model")
    for key, value in given.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"{prefix}{key}: has shape {tuple(value.shape)}, {tower.config.model} needs "
                f"{tuple(expected[key].shape)}: give weights of that model"
            )
    network.load_state_dict(counters | given)
    fold_batch_norm(network)
    tower.net.load_state_dict(network.state_dict())


@torch.no_grad()
def fold_batch_norm(module: nn.Module) -> None:
    """Fold each BatchNorm of an EfficientNet-like timm network into the convolution before it, in place.

    The convolution gets a bias; what stays in the place of the norm is its activation.
    With g = w / sqrt(v + eps), w and b the affine weights, m and v the running statistics: kernel * g, bias b - m * g.
    """
    convolution: nn.Conv2d | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            convolution = child
        elif isinstance(child, nn.BatchNorm2d):
            if convolution is None or child.running_mean is None or child.running_var is None:
                raise ConfigurationError(f"{name}: no convolution before this BatchNorm: choose another layout")
            gain = child.weight / torch.sqrt(child.running_var + child.eps)
            convolution.weight.mul_(gain.view(-1, 1, 1, 1))
            convolution.bias = nn.Parameter(child.bias - child.running_mean * gain)
            setattr(module, name, child.act)  # timm's BatchNorm carries its activation
            convolution = None
        else:
            fold_batch_norm(child)


def _out_channels(group: nn.Module) -> int:
    return [layer for layer in group.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels
