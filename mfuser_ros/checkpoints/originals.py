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
from mfuser_ros.checkpoints.keymap import KeyMap, map_keys
from mfuser_ros.checkpoints.original_names import DINOV2, Mode, Original, find_original, published_names
from mfuser_ros.checkpoints.store import ModelCard, TokenIds, save_model, sha256
from mfuser_ros.checkpoints.token_ids import keep_beside
from mfuser_ros.errors import CheckpointError
from mfuser_ros.hub import local_file
from mfuser_ros.network.config import PRESETS, Architecture
from mfuser_ros.network.model import MFuser

_OTHER_TEXT = "text tower, left out: the VLM's own is taken, if any"
_NO_TOWER = "visual tower, left out: the architecture has no place for it"


@dataclass(frozen=True)
class Untrained:
    """A network whose towers are the original encoders and whose other weights are random."""

    network: MFuser
    dropped: dict[str, str]  # name in its file -> reason


def untrained(
    vlm: Path, vfm: Path, *, architecture: Architecture | None = None, token_ids: TokenIds | None = None
) -> Untrained:
    """Build the MFuser that training starts from.

    An architecture of one tower, or without text, takes of the files what it has a place for, and does not open a file
    that fills nothing.

    Args:
        vlm: file of EVA02-CLIP-L, CLIP-L (OpenAI's TorchScript archive or a state dict) or SigLIP-L, or its name in
            open_clip (`mfuser_ros.hub`). It fills text tower and VLM.
        vfm: file of DINOv2-L without registers or of another vision transformer with timm's names, or its name in timm;
            for an architecture with a VLM in the VFM's place, as for `vlm`: its visual tower is taken.
        architecture: to build; the preset that the VLM's names belong to if None.
        token_ids: (classes, tokens) ids of the class names; they may also come later.

    Raises:
        CheckpointError: a file is missing, corrupt or of another encoder, or the hub cannot be reached; the text names
            the first weight.
        ConfigurationError: timm or open_clip does not know the name.
    """
    files: list[_File] = []
    if architecture is None or not architecture.matched or "vlm" in architecture.tower_names:
        weights = read_original(local_file(vlm))
        original = find_original(weights, source=str(vlm))
        architecture = architecture or PRESETS[original.preset]
        architecture = architecture.model_copy(update=score_of(weights))
        files.append(_File(vlm, weights, original, ("vlm.", "text."), "vlm."))
    if "vfm" in architecture.tower_names:
        weights = read_original(local_file(vfm))
        is_vlm = architecture.vfm.layout in ("eva02", "clip", "siglip")
        original = find_original(weights, source=str(vfm)) if is_vlm else DINOV2
        files.append(_File(vfm, weights, original, ("vfm.",), "vfm."))
    network = MFuser(architecture, token_ids)
    frozen = {name: weight for name, weight in network.state_dict().items() if name != "text.contexts"}
    dropped: dict[str, str] = {}
    for file in files:
        expected = {name: weight for name, weight in frozen.items() if name.startswith(file.prefixes)}
        ours, left_out = _towers(file, expected, architecture.name)
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
    if tokens is not None:
        keep_beside(tokens, target)
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
        if name.endswith("relative_position_bias_table"):
            return resize_offsets(tensor, shape[0])
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


def resize_offsets(biases: Tensor, count: int) -> Tensor:
    """(n, heads) biases for each offset between two places of a square grid, as BEiT has them -> (count, heads).

    A grid of side s has (2 s - 1)^2 offsets; the last three rows concern the class token and stay as they are.
    """
    side, wanted = math.isqrt(len(biases) - 3), math.isqrt(count - 3)
    if side == wanted or side**2 != len(biases) - 3 or wanted**2 != count - 3:
        return biases  # fits, or is of no square grid and does not
    grid = biases[:-3].T.reshape(1, -1, side, side)
    resized = F.interpolate(grid, (wanted, wanted), mode="bicubic", align_corners=False)
    return torch.cat([resized[0].flatten(1).T, biases[-3:]])


@dataclass(frozen=True)
class _File:
    """An encoder's weights, and what of them goes where."""

    source: Path
    weights: dict[str, Tensor]
    original: Original
    prefixes: tuple[str, ...]  # of the parts of the network that it fills
    tower: str  # prefix of the tower that its visual weights go to


def _towers(file: _File, expected: Mapping[str, Tensor], architecture: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    original, source = file.original, str(file.source)
    names, dropped = published_names(file.weights, original)
    for name in file.weights:
        if name not in dropped and name not in names.values():
            raise CheckpointError(
                f"{source}: {name} is no weight of the encoder of {original.preset}: give the encoder's file"
            )
    keys = map_keys(names, original.layout, source=source)
    parts = {name.partition(".")[0] for name in expected}
    placed: dict[str, str] = {}
    for theirs, ours in keys.renamed.items():
        own = file.tower + ours.removeprefix("vlm.") if ours.startswith("vlm.") else ours
        if own.partition(".")[0] in parts:
            placed[theirs] = own
        else:
            dropped[names[theirs]] = _OTHER_TEXT if own.startswith("text.") else _NO_TOWER
    published = {theirs: file.weights[name] for theirs, name in names.items()}
    fit = fit_to(original.mode, class_token=original.class_token)
    filled = translate(published, KeyMap(placed, {}), expected, preset=architecture, source=source, fit=fit)
    return filled, dropped | {names[theirs]: reason for theirs, reason in keys.dropped.items()}


def _is_torchscript(path: Path) -> bool:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
