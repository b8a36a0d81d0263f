"""Goldens: numbers recorded from the published model, and the comparison of ours with them.

A golden is NAME.json (what was run, sizes, tolerance) and NAME.safetensors, whose tensors say by their prefix what they
are: ``in.`` inputs, ``sd.`` weights by published names, ``out.`` results, ``mid.`` intermediates, ``grad.`` and
``grad_in.`` gradients of weights and inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfuser_ros.checkpoints.store import read_tensors
from mfuser_ros.errors import CheckpointError

RESULTS = ("out.", "grad.", "grad_in.")  # must be reproduced; intermediates help to find the first difference
ARGMAX_SHARE = 0.001  # of the pixels of a class map that may differ: ties


@dataclass(frozen=True)
class Golden:
    """One recorded run."""

    name: str
    manifest: Mapping[str, Any]  # the whole JSON
    sizes: Mapping[str, Any]  # hyperparameters, over those of the lender; their types vary, hence Any
    tolerance: Mapping[str, Any]  # the same
    tensors: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]  # by published names, without the prefix; those of the lender if it has none
    gradient_norms: tuple[str, ...] = ()  # names of the weights whose gradients' norms were recorded, in this order

    def __getitem__(self, key: str) -> Tensor:
        """A tensor by its full key, such as ``in.x``.

        Raises:
            CheckpointError: the golden does not hold it.
        """
        if key not in self.tensors:
            raise CheckpointError(f"golden {self.name}: {key} is missing: fetch its files again")
        return self.tensors[key]

    def keys(self, *prefixes: str) -> list[str]:
        """Full keys with one of these prefixes, in the order of the file."""
        return [key for key in self.tensors if key.startswith(prefixes)]


@dataclass(frozen=True)
class Row:
    """One compared tensor."""

    key: str
    difference: float  # the largest, absolute; infinite for another shape or a value that is no number
    tolerance: str
    ok: bool


def read_golden(path: str | Path) -> Golden:
    """Read PATH.json and PATH.safetensors; the weights may lie in another golden beside it (``sd_from``).

    Raises:
        CheckpointError: a file is missing, corrupt or incomplete.
    """
    stem = Path(path)
    if stem.suffix in {".json", ".safetensors"}:
        stem = stem.with_suffix("")
    manifest = _manifest(stem)
    tensors = read_tensors(_beside(stem, ".safetensors"))
    sizes, holder = manifest["hyperparameters"], tensors
    if "sd_from" in manifest:
        lender = stem.with_name(manifest["sd_from"]["golden"])
        sizes = _manifest(lender)["hyperparameters"] | sizes
        holder = read_tensors(_beside(lender, ".safetensors"))
    return Golden(
        name=manifest["name"],
        manifest=manifest,
        sizes=sizes,
        tolerance=manifest["tolerance"],
        tensors={key: value for key, value in tensors.items() if not key.startswith("sd.")},
        weights={key[3:]: value for key, value in holder.items() if key.startswith("sd.")},
        gradient_norms=tuple(manifest.get("grad_norm_order", ())),
    )


def compare(golden: Golden, computed: Mapping[str, Tensor]) -> list[Row]:
    """Hold what we computed against the record: all results, and the intermediates that we have.

    Two numbers agree if ``abs(ours - theirs) <= atol + rtol * abs(theirs)`` with the golden's tolerance. Masks and ids
    must be equal; a class map may differ at ties.

    Raises:
        CheckpointError: a result was not computed, or something was that the golden does not hold.
    """
    for key in golden.keys(*RESULTS):
        if key not in computed:
            raise CheckpointError(f"golden {golden.name}: {key} is not replayed by this version: use a known golden")
    rows = [_row(golden, key, ours) for key, ours in computed.items()]
    order = {key: index for index, key in enumerate(golden.tensors)}
    return sorted(rows, key=lambda row: (not row.key.startswith(RESULTS), order[row.key]))


def _row(golden: Golden, key: str, ours: Tensor) -> Row:
    theirs, ours = golden[key], ours.detach()
    if ".attn_mask" in key:
        theirs = theirs.bool() & ~theirs.bool().all(-1, keepdim=True)  # recorded before all-hidden rows are opened
    if theirs.shape != ours.shape:
        return Row(key, float("inf"), f"shape {tuple(theirs.shape)}, ours {tuple(ours.shape)}", ok=False)
    difference = (ours.double() - theirs.double()).abs()
    largest = float(difference.max().nan_to_num(torch.inf))
    if not theirs.is_floating_point():
        if key == "out.argmax":
            share = float((difference > 0).double().mean())
            return Row(key, share, f"share of pixels {ARGMAX_SHARE:g}", ok=share <= ARGMAX_SHARE)
        return Row(key, largest, "exact", ok=largest == 0)
    atol, rtol = _tolerance(golden, key)
    ok = bool((difference <= atol + rtol * theirs.double().abs()).all())
    return Row(key, largest, f"atol {atol:g} rtol {rtol:g}", ok=ok)


def _tolerance(golden: Golden, key: str) -> tuple[float, float]:
    stated = golden.tolerance
    if key == "out.prob_checksum":
        return stated["prob_checksum_atol"], 0.0
    if key.startswith(("grad.", "grad_in.")):
        atol = stated["grad_atol"]
        if isinstance(atol, str):  # a share, such as "2e-3 of the largest entry"
            atol = float(atol.split()[0]) * float(golden[key].abs().max())
        return atol, stated.get("grad_rtol", 0.0)
    return stated["atol"], stated["rtol"]


def _manifest(stem: Path) -> dict[str, Any]:  # JSON
    path = _beside(stem, ".json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}): give a golden without its suffix") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: is no JSON ({error}): fetch it again") from error
    needed = {"name", "hyperparameters", "tolerance"}
    if not isinstance(manifest, dict) or not needed <= set(manifest):
        raise CheckpointError(f"{path}: is no manifest of a golden (it needs {', '.join(sorted(needed))})")
    return manifest


def _beside(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)
