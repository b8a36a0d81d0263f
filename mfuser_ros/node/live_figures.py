"""What a vehicle would see, from the times of pictures and masks: rates, drops, ages, jitter. Needs no ROS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mfuser_ros.evaluation.drive.record import percentiles

KEPT_SHARE = 0.95
"""Of the wanted rate; a player that is slower has not kept its rate."""


class Played(NamedTuple):
    """One picture that was played. Times are seconds of one steady clock since the run began.

    Attributes:
        due_s: when it should have been published.
        sent_s: when it was published; its header carries this moment.
        mask_s: when its mask was here; None: never.
    """

    due_s: float
    sent_s: float
    mask_s: float | None


def figures(runs: Mapping[str, Sequence[Played]]) -> dict[str, Any]:  # JSON
    """The figures of a run: of all cameras together, and of each by itself under `cameras`.

    Counts add up and ages are pooled; a rate is that of the slowest camera, jitter that of the most uneven one.
    What cannot be told, such as the age of no mask, is None.

    Args:
        runs: pictures of each camera by its name, in the order in which they were played.
    """
    cameras = [{"name": name, **_of_camera(pictures)} for name, pictures in runs.items()]
    ages = [age for pictures in runs.values() for age in ages_ms(pictures)]
    whole: dict[str, Any] = {key: sum(camera[key] for camera in cameras) for key in ("pictures", "masks", "drops")}
    whole["drop_share"] = _share(whole["drops"], whole["pictures"])
    for key in ("wanted_hz", "played_hz", "rate_hz"):
        whole[key] = _among(min, cameras, key)
    whole |= _percentiles(ages)
    for key in ("jitter_ms", "jitter_max_ms", "late_max_ms"):
        whole[key] = _among(max, cameras, key)
    whole["player_kept_rate"] = all(camera["player_kept_rate"] for camera in cameras)
    return whole | {"cameras": cameras}


def ages_ms(pictures: Sequence[Played]) -> list[float]:
    """Ages of the masks when they came: from the stamp of the picture, milliseconds."""
    return [(picture.mask_s - picture.sent_s) * 1e3 for picture in pictures if picture.mask_s is not None]


def _of_camera(pictures: Sequence[Played]) -> dict[str, Any]:
    masks_s = sorted(picture.mask_s for picture in pictures if picture.mask_s is not None)
    wanted, played = _rate([picture.due_s for picture in pictures]), _rate([picture.sent_s for picture in pictures])
    drops = len(pictures) - len(masks_s)
    return {
        "pictures": len(pictures),
        "masks": len(masks_s),
        "drops": drops,
        "drop_share": _share(drops, len(pictures)),
        "wanted_hz": wanted,
        "played_hz": played,
        "rate_hz": _rate(masks_s),
        **_percentiles(ages_ms(pictures)),
        **_jitter(masks_s),
        "late_max_ms": _rounded(max((picture.sent_s - picture.due_s) * 1e3 for picture in pictures), 3)
        if pictures
        else None,
        "player_kept_rate": wanted is None or (played is not None and played >= KEPT_SHARE * wanted),
    }


def _rate(times_s: Sequence[float]) -> float | None:
    """Events a second, from the first to the last of them."""
    span_s = times_s[-1] - times_s[0] if len(times_s) > 1 else 0.0
    return _rounded((len(times_s) - 1) / span_s, 4) if span_s > 0 else None


def _percentiles(ages: list[float]) -> dict[str, float | None]:
    return {f"age_{name}_ms": _rounded(value, 3) for name, value in percentiles(ages)._asdict().items()}


def _jitter(masks_s: Sequence[float]) -> dict[str, float | None]:
    """Standard deviation of the intervals between masks, and the largest deviation from their mean, milliseconds."""
    if len(masks_s) < 3:
        return {"jitter_ms": None, "jitter_max_ms": None}
    intervals_ms = np.diff(masks_s) * 1e3
    deviations_ms = np.abs(intervals_ms - intervals_ms.mean())
    return {
        "jitter_ms": _rounded(float(intervals_ms.std()), 3),
        "jitter_max_ms": _rounded(float(deviations_ms.max()), 3),
    }


def _among(choose: Any, cameras: Sequence[Mapping[str, Any]], key: str) -> Any:  # Any: min or max
    values = [camera[key] for camera in cameras if camera[key] is not None]
    return choose(values) if values else None


def _share(part: int, whole: int) -> float | None:
    return _rounded(part / whole, 6) if whole else None


def _rounded(value: float, digits: int) -> float | None:
    return None if math.isnan(value) else round(value, digits)
