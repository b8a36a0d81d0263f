"""A trained network for other classes than it was trained for: each takes the weights of the class that is nearest.

Query k of MFuser stands for class k, and three tables hold a row for each class: the positions of the text in the pixel
decoder, those of the queries, and the map to class logits. All else reads the text embeddings and takes any number of
them. Nothing is trained here: the further a class is from those of training, the less its masks mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.model import MFuser


class ReboundClasses(nn.Module):
    """Logits of new classes from the map to the trained ones.

    To query k its own class has the probability of the trained class that it stands for. Classes that share a trained
    class with k are nothing to it: their masks compete. Others share the probability of theirs evenly. What no new
    class stands for counts as "no object".
    """

    shares: Tensor
    rest: Tensor

    def __init__(self, trained: nn.Linear, nearest: Sequence[int]) -> None:
        """Take over a map to K + 1 logits; `nearest` gives a trained class for each new one."""
        super().__init__()
        self.trained = trained
        self.nearest = list(nearest)
        classes = trained.out_features - 1
        members = Counter(self.nearest)
        shares = torch.tensor([float(members[index]) for index in self.nearest]).log().expand(len(nearest), -1).clone()
        same = torch.tensor(self.nearest)[:, None] == torch.tensor(self.nearest)
        shares[same] = torch.inf
        shares.fill_diagonal_(0)
        self.register_buffer("shares", shares, persistent=False)  # (K', K') to be taken off the logits
        rest = [index for index in range(classes + 1) if index not in members]
        self.register_buffer("rest", torch.tensor(rest), persistent=False)

    def forward(self, state: Tensor) -> Tensor:
        """(batch, K', width) of the queries -> (batch, K', K' + 1), the last column is "no object"."""
        logits = self.trained(state)
        own = logits[..., self.nearest] - self.shares.to(logits.dtype)
        return torch.cat([own, logits[..., self.rest].logsumexp(-1, keepdim=True)], -1)


@torch.no_grad()
def nearest_classes(text: Tensor, trained: Tensor) -> list[int]:
    """For each of (K', width) text embeddings the row of (K, width) trained ones of the largest cosine."""
    similarity = F.normalize(text, dim=-1) @ F.normalize(trained, dim=-1).T
    return [int(index) for index in similarity.argmax(-1)]


@torch.no_grad()
def rebind(network: MFuser, nearest: Sequence[int]) -> None:
    """Give a network other classes, in place; its text must be set to them, too.

    Args:
        network: as trained; it can then be neither trained nor saved.
        nearest: for each new class the trained one whose weights it takes.

    Raises:
        ConfigurationError: a trained class does not exist, or the classes were changed before.
    """
    pixels, masks = network.pixel_decoder, network.mask_decoder
    if not isinstance(masks.class_embed, nn.Linear):
        raise ConfigurationError("the classes of this network were changed before: load it again")
    if not nearest or not all(0 <= index < network.architecture.classes for index in nearest):
        raise ConfigurationError(f"classes {list(nearest)}: the network has 0 to {network.architecture.classes - 1}")
    rows = list(nearest)
    if network.architecture.head.text_attention:
        pixels.text_pos_embed = _rows(pixels.text_pos_embed, rows)
    masks.query_embed = _rows(masks.query_embed, rows)
    masks.set_submodule("class_embed", ReboundClasses(masks.class_embed, rows))
    network.architecture = network.architecture.model_copy(update={"classes": len(rows)})


def _rows(table: nn.Embedding, rows: list[int]) -> nn.Embedding:
    return nn.Embedding(len(rows), table.embedding_dim, _weight=table.weight[rows], _freeze=True)
