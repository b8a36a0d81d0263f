"""Replay the goldens of the losses and of a whole training step with our network and our losses.

They belong to `mfuser_ros.checkpoints.parity`, which compares; the losses lie above that package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.checkpoints import rebuild
from mfuser_ros.checkpoints.golden import Golden
from mfuser_ros.checkpoints.keymap import map_keys
from mfuser_ros.checkpoints.replay import Computed, picture_of
from mfuser_ros.network.model import MFuser
from mfuser_ros.training.losses import alignment_loss, class_loss, mask_loss
from mfuser_ros.training.targets import ClassTargets, Targets, choose_points, class_targets, fixed_labels, sample_points

CLASSES, MASK, DICE = 2.0, 5.0, 5.0  # weights of the published losses; that of the alignment is 1


def published_targets(label: Tensor, classes: int) -> Targets:
    """Targets of a data set that labels every class by its own id, each pixel weighing the same.

    Args:
        label: (B, H, W), 255 where there is none.
        classes: how many, K.
    """
    batch = len(label)
    return Targets(
        label=label.long(),
        membership=torch.eye(classes, dtype=torch.bool).expand(batch, -1, -1),
        weight=torch.ones(batch, classes),
        presence=torch.ones(batch, dtype=torch.bool),
    )


def losses(golden: Golden) -> Computed:
    """`unit_tqdm_loss*`: class, mask and dice losses of each prediction, and back to the predictions."""
    count = sum(key.startswith("in.cls.") for key in golden.tensors)
    class_logits = [golden[f"in.cls.{k}"].clone().requires_grad_() for k in range(count)]
    mask_logits = [golden[f"in.mask.{k}"].clone().requires_grad_() for k in range(count)]
    targets = published_targets(golden["in.gt_semantic_seg"][:, 0], class_logits[0].shape[1])
    terms, points = _head_losses(golden, torch.stack(class_logits), torch.stack(mask_logits), targets)
    computed = {f"out.{name}": value.reshape(golden[f"out.{name}"].shape) for name, value in terms.items()}
    total = torch.stack(list(terms.values())).sum()
    total.backward()  # type: ignore[no-untyped-call]
    if "out.total" in golden.tensors:
        computed["out.total"] = total.reshape(golden["out.total"].shape)
    for k in range(count):
        computed |= {f"grad_in.cls.{k}": _gradient(class_logits[k]), f"grad_in.mask.{k}": _gradient(mask_logits[k])}
    return computed | points


def step(golden: Golden) -> Computed:
    """`train_*_tiny`: a whole training step in train mode without dropout, and back to what is trained."""
    network = rebuild.mfuser(golden)
    _without_chance(network.train())
    targets = published_targets(golden["in.gt_semantic_seg"][:, 0], network.architecture.classes)
    output = network(picture_of(golden["in.img"]))
    assert output.score_logits is not None  # published networks know text
    terms, points = _head_losses(
        golden,
        torch.stack([prediction.class_logits for prediction in output.predictions]),
        torch.stack([prediction.mask_logits for prediction in output.predictions]),
        targets,
    )
    named = {f"out.decode.{name}": value for name, value in terms.items()}
    named["out.scr_map.loss_seg"] = alignment_loss(output.score_logits, targets)
    named["out.total"] = torch.stack(list(named.values())).sum()
    named["out.total"].backward()  # type: ignore[no-untyped-call]
    enlarged = F.interpolate(output.score_logits, targets.label.shape[1:], mode="bilinear")
    named["out.scr_map.acc_seg"] = 100 * (enlarged.argmax(1) == targets.label).float().mean()
    norm = network.neck.get_submodule("up4.1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return {
        **named,
        **points,
        **_weight_gradients(golden, network),
        "mid.bn_running_mean_after": norm.running_mean,
        "mid.bn_running_var_after": norm.running_var,
    }


REPLAYS: Mapping[str, Callable[[Golden], Computed]] = {"unit_tqdm_loss": losses, "train_": step}
"""What a golden's name begins with -> how it is replayed; for `mfuser_ros.checkpoints.parity.parity`."""


def _head_losses(
    golden: Golden, class_logits: Tensor, mask_logits: Tensor, targets: Targets
) -> tuple[dict[str, Tensor], Computed]:
    """Weighted losses of L predictions by their published names, and the points that were chosen."""
    classes = class_targets(targets)
    points = _points(golden, mask_logits.detach(), classes)
    at = torch.zeros(len(points), *classes.positive.shape, golden.sizes["num_points"], 2)
    for k, chosen in enumerate(points):
        at[k][classes.positive] = chosen
    class_terms = CLASSES * class_loss(class_logits, fixed_labels(classes))
    masks = mask_loss(mask_logits, classes, at)
    terms: dict[str, Tensor] = {}
    for k in range(len(points)):
        prefix = "" if k == len(points) - 1 else f"d{k}."
        terms[f"{prefix}loss_cls"] = class_terms[k]
        terms[f"{prefix}loss_mask"] = MASK * masks.bce[k]
        terms[f"{prefix}loss_dice"] = DICE * masks.dice[k]
    recorded = {f"mid.points.{k}": chosen for k, chosen in enumerate(points)}
    return terms, {key: value for key, value in recorded.items() if key in golden.tensors}


def _points(golden: Golden, mask_logits: Tensor, classes: ClassTargets) -> list[Tensor]:
    """Points (N, P, 2) of the N positive masks for each prediction, from the recorded random numbers."""
    count, masks = golden.sizes["num_points"], int(classes.positive.sum())
    candidates = int(golden.sizes["oversample_ratio"] * count)
    kept = int(golden.sizes["importance_sample_ratio"] * count)
    tape = _Tape(golden["in.tape"])
    points = []
    for logits in mask_logits:  # (B, K, h, w)
        for _ in range(len(logits)):
            tape.draw(1, count, 2)  # left over from the matching of the code that the published one comes from
        drawn = tape.draw(masks, candidates, 2), tape.draw(masks, count - kept, 2)
        chosen = choose_points(logits[classes.positive], *drawn, kept)
        order = sample_points(logits[classes.positive], chosen[:, :kept]).abs().argsort(1)  # as recorded
        chosen[:, :kept] = chosen[:, :kept].gather(1, order[..., None].expand(-1, -1, 2))
        points.append(chosen)
    return points


class _Tape:
    """Recorded uniform numbers, drawn in order and from the start again at their end."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers
        self._at = 0

    def draw(self, *shape: int) -> Tensor:
        count = torch.Size(shape).numel()
        drawn = self._numbers[(self._at + torch.arange(count)) % len(self._numbers)]
        self._at += count
        return drawn.view(shape)


def _without_chance(network: MFuser) -> None:
    """Set every rate of dropout and of stochastic depth to 0."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "drop_prob"):  # timm's stochastic depth
            setattr(module, "drop_prob", 0.0)  # noqa: B010  # not of nn.Module's own


def _weight_gradients(golden: Golden, network: MFuser) -> Computed:
    """Gradients by published names, those that were recorded, and the norms of all."""
    names = map_keys(golden.gradient_norms, rebuild.layout(golden), source=f"golden {golden.name}").renamed
    gradients = {theirs: _gradient(network.get_parameter(ours)) for theirs, ours in names.items()}
    norms = torch.stack([gradient.norm() for gradient in gradients.values()])
    wanted = (key.removeprefix("grad.") for key in golden.keys("grad."))
    return {"mid.grad_norms": norms, **{f"grad.{name}": gradients[name] for name in wanted}}


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
