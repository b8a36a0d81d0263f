"""The files of the original encoders -> the frozen towers of an MFuser that is still to be trained.

Each file of an encoder's own authors is renamed to what a published MFuser checkpoint calls the same weights, and from
there goes through its key map. Where open_clip runs a tower of timm, the names are ours but for their prefixes.
Positions and patch kernels are resized as published: DINOv2 and EVA02-CLIP bicubic, CLIP and SigLIP bilinear, never
with antialiasing (timm's own loaders use it), kernels without a change of magnitude; text positions are cut.

Source: spec of MFuser section 2.4; the names are facts, no code is taken.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints.convert import LICENCE, Conversion, Fit, read_published, this_tool, token_ids_for, translate
from mfuser_ros.checkpoints.hub import local_file
from mfuser_ros.checkpoints.keymap import map_keys
from mfuser_ros.checkpoints.original_names import DINOV2, Mode, Original, find_original, published_names
from mfuser_ros.checkpoints.store import ModelCard, TokenIds, save_model, sha256
from mfuser_ros.errors import CheckpointError
from mfuser_ros.network.config import PRESETS, Architecture
from mfuser_ros.network.model import MFuser


@dataclass(frozen=True)
class Untrained:
    """A network whose towers are the original encoders and whose other weights are random."""

    network: MFuser
    dropped: dict[str, str]  # name in its file -> reason


def untrained(
    vlm: Path, vfm: Path, *, architecture: Architecture | None = None, token_ids: TokenIds | None = None
) -> Untrained:
    """Build the MFuser that training starts from.

    Args:
        vlm: file of EVA02-CLIP-L, CLIP-L (OpenAI's TorchScript archive or a state dict) or SigLIP-L, or its name in
            open_clip (`mfuser_ros.checkpoints.hub`).
        vfm: file of DINOv2-L without registers, or its name in timm.
        architecture: to build; the preset that the VLM's names belong to if None.
        token_ids: (classes, tokens) ids of the class names; they may also come later.

    Raises:
        CheckpointError: a file is missing, corrupt or of another encoder, or the hub cannot be reached; the text names
            the first weight.
        ConfigurationError: timm or open_clip does not know the name.
    """
    vlm_file, vfm_file = local_file(vlm), local_file(vfm)
    visual = read_original(vlm_file)
    original = find_original(visual, source=str(vlm))
    architecture = architecture or PRESETS[original.preset]
    architecture = architecture.model_copy(update=score_of(visual))
    network = MFuser(architecture, token_ids)
    frozen = {name: weight for name, weight in network.state_dict().items() if name != "text.contexts"}
    dropped: dict[str, str] = {}
    files = ((visual, original, ("vlm.", "text."), vlm), (read_original(vfm_file), DINOV2, ("vfm.",), vfm))
    for weights, names, prefixes, source in files:
        expected = {name: weight for name, weight in frozen.items() if name.startswith(prefixes)}
        ours, left_out = _towers(weights, names, expected, original.preset, str(source))
        network.load_state_dict(ours, strict=False)
        dropped |= left_out
    return Untrained(network, dropped)


def save_untrained(
    vlm: Path, vfm: Path, target: Path, *, tokens: Path | None = None, licence: str = LICENCE
) -> Conversion:
    """Write the MFuser that training starts from as NAME.safetensors and NAME.yaml.

    Args:
        vlm: file of EVA02-CLIP-L, CLIP-L or SigLIP-L, or its name in open_clip.
        vfm: file of DINOv2-L without registers, or its name in timm.
        target: path of the .safetensors to write.
        tokens: as for `convert`.
        licence: of the weights.

    Raises:
        CheckpointError: a file is missing, corrupt or of another encoder, or the target cannot be written.
        ConfigurationError: token ids are missing, are not wanted, or do not fit the text tower, or a name is unknown.
    """
    names = vocabulary.load().names
    preset = find_original(read_original(local_file(vlm)), source=str(vlm)).preset
    token_ids = token_ids_for(PRESETS[preset], names, tokens)
    start = untrained(vlm, vfm, token_ids=token_ids)
    files = {source: local_file(source) for source in (vlm, vfm)}
    sources = " and ".join(
        f"{file.name if file == source else source}, SHA-256 {sha256(file)}" for source, file in files.items()
    )
    card = ModelCard(
        name=target.stem,
        architecture=start.network.architecture,
        vocabulary=names,
        token_ids=token_ids,
        threshold=0.0,
        temperature=1.0,
        licence=licence,
        provenance=f"untrained: towers by {this_tool()} from {sources}; all other weights are random",
    )
    file = save_model(start.network, card, target)
    return Conversion(preset, file, target, len(start.network.state_dict()), start.dropped)


def score_of(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Scale and bias of the score map, as entries of an architecture, where an encoder's file holds both: SigLIP's.

    CLIP's and EVA02's temperatures are not used.
    """
    if "logit_bias" not in weights:
        return {}
    scale, bias = (weights[name].float() for name in ("logit_scale", "logit_bias"))
    return {"score_scale": float(scale.exp()), "score_bias": float(bias)}


def read_original(path: Path) -> dict[str, Tensor]:
    """The weights of an encoder's file: a state dict, or a TorchScript archive, none of whose code is run.

    Raises:
        CheckpointError: the file is missing or corrupt, or holds anything that would run code.
    """
    if not _is_torchscript(path):
        return read_published(path)
    try:
        archive: Any = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]  # torch does not say
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: is no whole TorchScript archive ({reason}): fetch it again") from error
    return dict(archive.state_dict())


def fit_to(mode: Mode, *, class_token: bool) -> Fit:
    """The function that resizes positions and patch kernels, and cuts text positions (for `translate`)."""

    def fit(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        if name.endswith("net.pos_embed"):
            return resize_positions(tensor, shape[1], mode, class_token=class_token)
        if name.endswith("patch_embed.proj.weight") and tensor.shape[2:] != shape[2:]:
            return F.interpolate(tensor, shape[2:], mode=mode, align_corners=False)
        if name == "text.positional_embedding":
            return tensor[: shape[0]]
        return tensor

    return fit


def resize_positions(positions: Tensor, count: int, mode: Mode, *, class_token: bool) -> Tensor:
    """(1, n, D) learned positions of a square grid -> (1, count, D); a class token's stays as it is."""
    first = int(class_token)
    side, wanted = math.isqrt(positions.shape[1] - first), math.isqrt(count - first)
    if side == wanted or side**2 != positions.shape[1] - first or wanted**2 != count - first:
        return positions  # fits, or is of no square grid and does not
    grid = positions[:, first:].transpose(1, 2).reshape(len(positions), -1, side, side)
    resized = F.interpolate(grid, (wanted, wanted), mode=mode, align_corners=False)
    return torch.cat([positions[:, :first], resized.flatten(2).transpose(1, 2)], 1)


def _towers(
    weights: Mapping[str, Tensor], original: Original, expected: Mapping[str, Tensor], preset: str, source: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    names, dropped = published_names(weights, original)
    for name in weights:
        if name not in dropped and name not in names.values():
            raise CheckpointError(f"{source}: {name} is no weight of the encoder of {preset}: give the encoder's file")
    keys = map_keys(names, original.layout, source=source)
    published = {theirs: weights[name] for theirs, name in names.items()}
    fit = fit_to(original.mode, class_token=original.class_token)
    ours = translate(published, keys, expected, preset=preset, source=source, fit=fit)
    return ours, dropped | {names[theirs]: reason for theirs, reason in keys.dropped.items()}


def _is_torchscript(path: Path) -> bool:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
