"""The files of the original encoders -> the frozen towers of an MFuser that is still to be trained.

Each file of an encoder's own authors is renamed to what a published MFuser checkpoint calls the same weights, and from
there goes through its key map. Where open_clip runs a tower of timm, the names are ours but for their prefixes.
Positions and patch kernels are resized as published: DINOv2 and EVA02-CLIP bicubic, CLIP and SigLIP bilinear, never
with antialiasing (timm's own loaders use it), kernels without a change of magnitude; text positions are cut.

Source: spec of MFuser section 2.4; the names are facts, no code is taken.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints.convert import LICENCE, Conversion, Fit, read_published, this_tool, token_ids_for, translate
from mfuser_ros.checkpoints.hub import local_file
from mfuser_ros.checkpoints.keymap import LAYOUTS, Layout, Table, map_keys
from mfuser_ros.checkpoints.store import ModelCard, TokenIds, save_model, sha256
from mfuser_ros.errors import CheckpointError
from mfuser_ros.network.config import PRESETS, Architecture
from mfuser_ros.network.model import MFuser

Mode = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Original:
    """How the file of an original encoder names its weights. The first pattern that matches a whole name counts."""

    preset: str  # whose encoder it is
    layout: Layout  # of the names that come out
    sign: str  # a name that comes out of this file alone
    renamed: Table  # pattern, name in the layout
    dropped: Table  # pattern, why it is not needed
    mode: Mode  # in which positions and patch kernels are resized
    class_token: bool  # whether the first position is that of a class token


_SCALE = "temperature of its own training"

# names that are ours already
_OURS = Layout(sign="", renamed=((r"(.+)", r"\1"),), dropped=())

DINOV2 = Original(  # of its authors and of timm; every preset's
    preset="eva02-l",
    layout=LAYOUTS["eva02-l"],
    sign="backbone.dinov2.cls_token",
    renamed=((r"(.+)", r"backbone.dinov2.\1"),),
    dropped=(),
    mode="bicubic",
    class_token=True,
)

ORIGINALS = {
    "eva02-l": Original(
        preset="eva02-l",
        layout=LAYOUTS["eva02-l"],
        sign=LAYOUTS["eva02-l"].sign,
        renamed=((r"visual\.(.+)", r"backbone.\1"), (r"text\.(.+)", r"text_encoder.\1")),
        dropped=((r"logit_scale", _SCALE), (r"text\.attn_mask", "causal mask, computed from the length")),
        mode="bicubic",
        class_token=True,
    ),
    "eva02-l of open_clip": Original(
        preset="eva02-l",
        layout=_OURS,
        sign="vlm.net.cls_token",
        renamed=((r"visual\.trunk\.(.+)", r"vlm.net.\1"), (r"(text\..+)", r"\1")),
        dropped=((r"logit_scale", _SCALE),),
        mode="bicubic",
        class_token=True,
    ),
    "clip-l": Original(  # OpenAI's and open_clip's
        preset="clip-l",
        layout=LAYOUTS["clip-l"],
        sign=LAYOUTS["clip-l"].sign,
        renamed=(
            (r"visual\.(.+)", r"backbone.\1"),
            (
                r"((?:transformer|token_embedding|ln_final)\..+|positional_embedding|text_projection)",
                r"text_encoder.\1",
            ),
        ),
        dropped=(
            (r"logit_scale", _SCALE),
            (r"input_resolution|context_length|vocab_size", "a size, not a weight"),
            (r"attn_mask", "causal mask, computed from the length"),
        ),
        mode="bilinear",
        class_token=True,
    ),
    "siglip-l": Original(  # of transformers
        preset="siglip-l",
        layout=LAYOUTS["siglip-l"],
        sign=LAYOUTS["siglip-l"].sign,
        renamed=((r"vision_model\.(.+)", r"backbone.\1"), (r"text_model\.(.+)", r"text_encoder.\1")),
        dropped=(
            (r"logit_(?:scale|bias)", "kept in the architecture, as scale and bias of the score map"),
            (r"(?:vision|text)_model\.embeddings\.position_ids", "counts from 0"),
        ),
        mode="bilinear",
        class_token=False,
    ),
    "siglip-l of open_clip": Original(
        preset="siglip-l",
        layout=_OURS,
        sign="vlm.pool.probe",
        renamed=(
            (r"visual\.trunk\.attn_pool\.latent", r"vlm.pool.probe"),
            (r"visual\.trunk\.attn_pool\.(q|kv)\.(weight|bias)", r"vlm.pool.attention.in_proj_\2@\1"),
            (r"visual\.trunk\.attn_pool\.proj\.(.+)", r"vlm.pool.attention.out_proj.\1"),
            (r"visual\.trunk\.attn_pool\.norm\.(.+)", r"vlm.pool.layernorm.\1"),
            (r"visual\.trunk\.attn_pool\.(mlp\.fc[12]\..+)", r"vlm.pool.\1"),
            (r"visual\.trunk\.(.+)", r"vlm.net.\1"),
            (r"text\.text_projection\.(.+)", r"text.head.\1"),
            (r"(text\..+)", r"\1"),
        ),
        dropped=((r"logit_(?:scale|bias)", "kept in the architecture, as scale and bias of the score map"),),
        mode="bilinear",
        class_token=False,
    ),
}


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
    if "logit_bias" in visual:  # SigLIP's temperature is its own; CLIP's and EVA02's are not used
        scale, bias = float(visual["logit_scale"].float().exp()), float(visual["logit_bias"].float())
        architecture = architecture.model_copy(update={"score_scale": scale, "score_bias": bias})
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


def find_original(names: Mapping[str, Tensor], *, source: str) -> Original:
    """The VLM that the names of a file belong to.

    Raises:
        CheckpointError: they belong to none.
    """
    for original in ORIGINALS.values():
        renamed, _ = _renamed(names, original)
        if original.sign in renamed:
            return original
    raise CheckpointError(f"{source}: is neither EVA02-CLIP nor CLIP nor SigLIP by its names: give the VLM's own file")


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
    renamed, dropped = _renamed(weights, original)
    for name in weights:
        if name not in dropped and name not in renamed.values():
            raise CheckpointError(f"{source}: {name} is no weight of the encoder of {preset}: give the encoder's file")
    keys = map_keys(renamed, original.layout, source=source)
    published = {theirs: weights[name] for theirs, name in renamed.items()}
    fit = fit_to(original.mode, class_token=original.class_token)
    ours = translate(published, keys, expected, preset=preset, source=source, fit=fit)
    return ours, dropped | {renamed[theirs]: reason for theirs, reason in keys.dropped.items()}


def _renamed(names: Mapping[str, Tensor], original: Original) -> tuple[dict[str, str], dict[str, str]]:
    """Names in the layout -> those of the file, and what is dropped; names that no pattern knows are in neither."""
    renamed: dict[str, str] = {}
    dropped: dict[str, str] = {}
    for name in names:
        reason = next((reason for pattern, reason in original.dropped if re.fullmatch(pattern, name)), None)
        if reason is not None:
            dropped[name] = reason
            continue
        theirs = next((m.expand(new) for old, new in original.renamed if (m := re.fullmatch(old, name))), None)
        if theirs is not None:
            renamed[theirs] = name
    return renamed, dropped


def _is_torchscript(path: Path) -> bool:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
