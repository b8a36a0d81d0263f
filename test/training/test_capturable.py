"""What a CUDA graph asks of the step, checked without a GPU: after the first step no tensor of the host takes part."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mfuser_ros.network import deformable
from mfuser_ros.network.config import changed
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.mvfuser import MVFuser
from mfuser_ros.training.config import load_recipe
from mfuser_ros.training.draws import Draws
from mfuser_ros.training.geometry import Geometry
from mfuser_ros.training.objective import objective
from mfuser_ros.training.photometry import Photometry
from mfuser_ros.training.regularisers import Anchor
from mfuser_ros.training.sources import Source, draw_batch

META = torch.device("meta")  # tensors without values; stands for "not the host"


class _HostTensors(TorchDispatchMode):
    """Notes every operation that reads or makes a tensor of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, (list, tuple)) else [result]
        if any(isinstance(item, torch.Tensor) and item.device.type == "cpu" for item in [*args, *made]):
            self.seen.append(str(func))
        return result


def _source() -> Source:
    return Source(
        picture=torch.empty(5, 3, 60, 80, dtype=torch.uint8, device=META),
        label=torch.empty(5, 60, 80, dtype=torch.uint8, device=META),
        size=torch.empty(5, 2, device=META),
        chance=torch.empty(5, device=META),
        membership=torch.empty(19, 19, dtype=torch.bool, device=META),
        weight=torch.empty(19, device=META),
        presence=torch.empty((), dtype=torch.bool, device=META),
        samples=2,
        nominal=(64, 96),
    )


TQDM = {"towers": "vlm", "fusion": {"kind": "none"}, "enhancer": {"kind": "cross-attention", "layers": 3}}
REIN = {
    "towers": "vfm",
    "fusion": {"kind": "rein"},
    "enhancer": {"kind": "none"},
    "text": {"kind": "linked"},
    "head": {"text_attention": False},
}


@pytest.mark.parametrize("changes", [{}, TQDM, REIN], ids=["mfuser", "tqdm", "rein"])
def test_no_tensor_of_the_host_takes_part_in_a_step(
    monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, Any]
) -> None:
    # a copy from the host cannot be recorded; the sampling of a GPU is used, its scan kernel cannot run here
    monkeypatch.setattr(deformable, "_sample_by_embedding_bag", deformable._sample_by_grid)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # unknown to meta
    losses = load_recipe(Path(__file__).parents[2] / "config" / "train" / "small.yaml").losses
    model, photometry = MFuser(changed("small", changes)).to(META), Photometry().to(META)
    anchor = Anchor(model, ["road"] * 19) if changes is TQDM else None
    for module in model.modules():
        if isinstance(module, MVFuser):
            module.backend = "blocked"
    sources, draws = [_source(), _source()], Draws([2, 2], META)

    def step() -> None:
        picture, targets = draw_batch(sources, Geometry(crop=(64, 96)))
        picture = photometry(picture, draws)
        output = model(picture)
        drift = anchor(picture, output) if anchor else None
        terms = objective(output, targets, losses, matched=changes is REIN, drift=drift, draws=draws)
        terms.total.backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), 2.0, norm)

    step()  # fills the tables of positions, as the steps before recording do
    with _HostTensors() as host:
        step()
    assert host.seen == []
