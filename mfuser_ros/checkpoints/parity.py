"""Parity with the published model: replay a golden and compare every recorded number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from mfuser_ros.checkpoints import replay, replay_imports
from mfuser_ros.checkpoints.golden import Golden, Row, compare, read_golden
from mfuser_ros.errors import CheckpointError

_REPLAYS: dict[str, Callable[[Golden], replay.Computed]] = {
    "unit_mvfuser": replay.mvfuser,
    "unit_context_decoder": replay.context_decoder,
    "unit_ms_deform_attn": replay.ms_deform_attn,
    "unit_pixel_decoder": replay.pixel_decoder,
    "unit_tqdm_head": replay.tqdm_head,
    "unit_text_encoder": replay.text_encoder,
    "unit_extract_feats": replay.extract_feats,
    "unit_normalise": replay.normalise,
    "model_": replay.whole_model,
    "unit_weight_import_": replay_imports.weight_import,
    "unit_tokenize_clip": replay_imports.token_ids,
}
_ELSEWHERE = {
    "unit_preprocess": "it records how the published data pipeline resizes, ours brings pictures to the size that the "
    "architecture states",
}
_SLIDING = "unit_slide_eva"


def parity(
    path: str | Path,
    *,
    slide: replay.Slide,
    starts: replay.Starts,
    training: Mapping[str, Callable[[Golden], replay.Computed]] | None = None,
) -> list[Row]:
    """Replay a golden in float32 on the CPU and compare.

    Args:
        path: of the golden, without its suffix.
        slide: sliding windows (`mfuser_ros.inference.windows.slide`, which lies above this package).
        starts: first pixels of the windows along one axis (from there, too).
        training: replays of goldens of losses and training (`mfuser_ros.training.replay.REPLAYS`, for the same reason).

    Returns:
        One row for each compared tensor, results first.

    Raises:
        CheckpointError: the golden is missing, incomplete, or of a kind that this version cannot replay.
    """
    golden = read_golden(path)
    reason = next((reason for kind, reason in _ELSEWHERE.items() if golden.name.startswith(kind)), None)
    if reason is not None:
        raise CheckpointError(f"golden {golden.name}: cannot be replayed: {reason}")
    replays = {**_REPLAYS, **(training or {})}
    kinds = [kind for kind in (*replays, _SLIDING) if golden.name.startswith(kind)]
    if not kinds:
        known = ", ".join((*replays, _SLIDING))
        raise CheckpointError(f"golden {golden.name}: cannot be replayed by this version: known are {known}")
    kind = max(kinds, key=len)
    with torch.random.fork_rng():  # networks start at random; callers keep their random numbers
        try:
            computed = replay.slide_eva(golden, slide, starts) if kind == _SLIDING else replays[kind](golden)
        except KeyError as error:
            raise CheckpointError(f"golden {golden.name}: its manifest lacks {error}: fetch it again") from error
    return compare(golden, computed)
