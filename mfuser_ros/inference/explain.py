"""What a model sees in a picture: features of both towers before and after fusion, and where each query looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.inference.segmenter import Segmenter, Size
from mfuser_ros.network.config import WindowInput
from mfuser_ros.network.model import MFuser

_FAINT = 1e-6  # a component with less than this share of the first one's spread is rounding, not structure


@dataclass(frozen=True)
class Explanation:
    """What a model sees in one picture, on the grids of its features.

    Attributes:
        stage: after which the towers were looked at.
        vfm_before: uint8 RGB (h, w, 3), first three principal components of the VFM's features before fusion.
        vfm_after: the same after fusion; a colour means the same features in both.
        vlm_before: as `vfm_before`, of the VLM, whose components are its own.
        vlm_after: as `vfm_after`, of the VLM.
        vfm_moved: float32 (h, w), length of what fusion adds to a place's features over the length of these.
        vlm_moved: as `vfm_moved`, of the VLM.
        heatmaps: float32 (K, h', w') 0..1, how surely each class's query takes each place into its mask.
        presence: float32 (K,) 0..1, how surely its query finds the class anywhere in the picture.
    """

    stage: int
    vfm_before: np.ndarray
    vfm_after: np.ndarray
    vlm_before: np.ndarray
    vlm_after: np.ndarray
    vfm_moved: np.ndarray
    vlm_moved: np.ndarray
    heatmaps: np.ndarray
    presence: np.ndarray


def explain(segmenter: Segmenter, picture: np.ndarray, stage: int | None = None) -> Explanation:
    """Look into a model while it sees a picture.

    The whole picture is stretched to what the network sees at once; a model of windows sees it as one window.

    Args:
        segmenter: gives model and vocabulary. A merged class has the largest heat and presence of its members.
        picture: uint8 RGB (H, W, 3).
        stage: of the towers, from 0; None: the last one that a fuser follows.

    Raises:
        ConfigurationError: the towers have no such stage, or there is but one tower.
        InputError: not a uint8 RGB array.
    """
    model = segmenter.model
    if len(model.towers) != 2:
        raise ConfigurationError(
            f"{segmenter.name}: has one tower, so there is no fusion to look at: give a model of two"
        )
    stages = len(model.vfm.widths)
    chosen = max(model.architecture.fusion.stages, default=stages - 1) if stage is None else stage
    if not 0 <= chosen < stages:
        raise ConfigurationError(f"stage {chosen}: the towers of {segmenter.name} have stages 0 to {stages - 1}")
    with torch.inference_mode():
        batch = segmenter.prepare([picture], _size(segmenter, picture))
        before, after = tower_features(model, batch, chosen)
        prediction = model.predict(batch)
        heat = prediction.mask_logits[0].float().sigmoid().cpu().numpy()
        chances = prediction.class_logits[0].float().softmax(-1)[:, :-1]
        presence = chances.diagonal().cpu().numpy()
    if segmenter.members is not None:
        groups = [list(group) for group in segmenter.members]
        heat = np.stack([heat[group].max(0) for group in groups])
        presence = np.stack([presence[group].max() for group in groups])
    vfm_before, vfm_after = principal_maps(before[0], after[0])
    vlm_before, vlm_after = principal_maps(before[1], after[1])
    return Explanation(
        stage=chosen,
        vfm_before=vfm_before,
        vfm_after=vfm_after,
        vlm_before=vlm_before,
        vlm_after=vlm_after,
        vfm_moved=_moved(before[0], after[0]),
        vlm_moved=_moved(before[1], after[1]),
        heatmaps=heat,
        presence=presence,
    )


def tower_features(model: MFuser, pictures: Tensor, stage: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Features of the first picture of a batch, those of VFM and VLM, before and after fusion at a stage.

    Args:
        model: in evaluation mode.
        pictures: (batch, 3, H, W) RGB 0..255.
        stage: of the towers; without a fuser there, after is as before.

    Returns:
        before: (D, h, w) of the VFM and (D', h', w') of the VLM as they leave the stage.
        after: the same with the fuser's offsets.
    """
    size = (pictures.shape[2], pictures.shape[3])
    towers = model.towers
    states = [tower.embed(pictures) for tower in towers]
    before = states
    for index in range(stage + 1):
        states = before = [tower.stage(index, state) for tower, state in zip(towers, states, strict=True)]
        if str(index) in model.fusion:
            tokens = [tower.tokens(state) for tower, state in zip(towers, before, strict=True)]
            mixed = model.fusion[str(index)](tokens, towers[-1].grid(before[-1], size).shape[-2:])
            states = [tower.with_tokens(*pair) for tower, *pair in zip(towers, before, mixed, strict=True)]

    def grids(both: list[Tensor]) -> tuple[Tensor, Tensor]:
        vfm, vlm = (tower.grid(state, size)[0].float() for tower, state in zip(towers, both, strict=True))
        return vfm, vlm

    return grids(before), grids(states)


def principal_maps(before: Tensor, after: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """First three principal components of two maps of the same features as red, green and blue.

    The components are those of both maps together, and so is the scale: 1st to 99th percentile of each component to
    0..255. The sign of a component, which is arbitrary, is such that its largest weight is positive.

    Args:
        before: (D, h, w).
        after: (D, h, w).

    Returns:
        Two uint8 RGB (h, w, 3).
    """
    height, width = before.shape[1:]
    features = torch.cat([before.flatten(1), after.flatten(1)], 1).double().T.cpu()  # (2 h w, D)
    features = features - features.mean(0)
    _, axes = torch.linalg.eigh(features.T @ features)  # ascending
    axes = axes[:, -3:].flip(1)  # (D, 3)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    components = (features @ axes).numpy()  # (2 h w, 3)
    if components.shape[1] < 3:
        components = np.pad(components, ((0, 0), (0, 3 - components.shape[1])))
    low, high = np.percentile(components, (1, 99), axis=0)
    spread = high - low
    spread = np.where(spread > _FAINT * spread.max(), spread, np.inf)
    shades = np.clip((components - (low + high) / 2) / spread + 0.5, 0, 1)
    first, second = np.round(255 * shades).astype(np.uint8).reshape(2, height, width, 3)
    return first, second


def _moved(before: Tensor, after: Tensor) -> np.ndarray:
    share: np.ndarray = ((after - before).norm(dim=0) / before.norm(dim=0).clamp(min=1e-12)).cpu().numpy()
    return share


def _size(segmenter: Segmenter, picture: np.ndarray) -> Size:
    shape = segmenter.model.architecture.input
    if isinstance(shape, WindowInput):
        return (shape.crop, shape.crop)
    return segmenter.input_size_for(*picture.shape[:2])
