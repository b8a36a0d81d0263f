"""Checkpoints of a training: all that the next step depends on, in one file that is never half written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfuser_ros.errors import CheckpointError
from mfuser_ros.training.config import TrainConfig
from mfuser_ros.training.step import Step

STATE = "state.pt"


@dataclass(frozen=True)
class Score:
    """What one evaluation said."""

    name: str
    value: float
    step: int

    def __str__(self) -> str:
        return f"{self.name} {self.value:g} at step {self.step}"


@dataclass(frozen=True)
class Progress:
    """How far a training is, beside its weights."""

    elapsed_s: float = 0.0
    best: Score | None = None
    last: Score | None = None


def save_state(path: Path, step: Step, config: TrainConfig, progress: Progress) -> None:
    """Write a checkpoint.

    Raises:
        CheckpointError: it cannot be written; what was there before stays.
    """
    state = {
        "version": 2,
        "config": config.model_dump_json(),
        "elapsed_s": progress.elapsed_s,
        "best": None if progress.best is None else vars(progress.best),
        "last": None if progress.last is None else vars(progress.last),
        "random": _random_state(),
        **step.state(),
    }
    try:
        replaced(path, lambda part: torch.save(state, part))
    except (OSError, RuntimeError) as error:  # torch tells of a full disk by the latter
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: cannot be written ({reason}): free space or choose another folder") from error


def load_state(path: Path, step: Step, config: TrainConfig) -> Progress:
    """Go on from a checkpoint, on the CPU bit for bit as if nothing had happened.

    Raises:
        CheckpointError: it is missing, damaged, or of another recipe.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_recipe(path, TrainConfig.model_validate_json(state["config"]), config)
        step.load_state(state)
        progress = Progress(float(state["elapsed_s"]), _score(state.get("best")), _score(state.get("last")))
        torch.set_rng_state(state["random"][0])
        if step.device.type == "cuda" and len(state["random"]) > 1:
            torch.cuda.set_rng_state(state["random"][1])
    except CheckpointError:
        raise
    except Exception as error:  # damage shows itself in any way; torch.load promises none
        raise CheckpointError(f"{path}: no state to resume from ({' '.join(str(error).split())[:200]})") from error
    return progress


def replaced(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and move it there; on the disk is the old one or the whole new one."""
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut may find the new name before the content
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _check_recipe(path: Path, theirs: TrainConfig, ours: TrainConfig) -> None:
    if theirs == ours:
        return
    was, now = _flat(theirs.model_dump()), _flat(ours.model_dump())
    key = next(key for key in [*was, *now] if was.get(key) != now.get(key))
    raise CheckpointError(
        f"{path}: belongs to another recipe ({key} was {was.get(key)}, is {now.get(key)}): "
        "resume with the recipe that it was made with"
    )


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:  # of YAML
    if isinstance(content, (list, tuple)):
        content = dict(enumerate(content))
    if not isinstance(content, dict) or not content:
        return {prefix: content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _score(state: dict[str, Any] | None) -> Score | None:
    return None if state is None else Score(**state)


def _random_state() -> list[Tensor]:
    """States of torch's generators: CPU, then the current GPU if there is one."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]
