"""Search the highest rate that a node keeps up with, as NVIDIA's ros2_benchmark does. Needs no ROS.

Method (NVIDIA-ISAAC-ROS/ros2_benchmark, ros2_benchmark_test.py): bisect the rate of the player between a lower and an
upper bound until the interval is small, scan upwards from its lower end in small steps until too many pictures are
lost, measure at the found rate, then at fixed rates. There the bounds are 10 and 100 Hz, the interval 10 Hz, the steps
5 Hz; here they are shares of the rate, so that a slow node has a peak as well, and a peak counts only if it is kept a
second time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

DROP_SHARE = 0.05
"""A rate is kept up with if fewer of the pictures than this are lost."""

LOWEST_HZ = 1.0
HIGHEST_HZ = 100.0

INTERVAL = 1.25
"""Upper end by lower end of the interval in which the scan begins."""

STEP = 1.05
"""From rate to rate in the scan."""

RETREAT = 1.1
"""From rate to lower rate where a rate that was kept once is not kept again."""

FIXED_HZ = (10.0, 30.0, 60.0)
"""Rates that are measured after the search, kept up with or not."""

Measure = Callable[[float], Mapping[str, Any]]
"""Plays at a rate in Hz; gives `live_figures.figures` of the run."""


@dataclass(frozen=True)
class Peak:
    """What a search has found.

    Attributes:
        rate_hz: highest rate that was kept up with twice; None: not even the lowest was.
        figures: of the second time; None without a rate.
        limited_by: what did not keep a higher rate: the node, the player that could not send so fast, or the upper
            bound of the search.
        probes: rate and figures of every measurement, in their order.
    """

    rate_hz: float | None
    figures: Mapping[str, Any] | None
    limited_by: Literal["node", "player", "search"]
    probes: list[tuple[float, Mapping[str, Any]]]


def keeps_up(figures: Mapping[str, Any]) -> bool:
    """Whether the player kept its rate and fewer than `DROP_SHARE` of the pictures of every camera were lost."""
    shares = [camera["drop_share"] for camera in figures["cameras"]]
    return bool(figures["player_kept_rate"]) and all(share is not None and share < DROP_SHARE for share in shares)


def search_peak(measure: Measure, *, lowest_hz: float = LOWEST_HZ, highest_hz: float = HIGHEST_HZ) -> Peak:
    """Find the highest rate between two bounds that is kept up with.

    Args:
        measure: plays at a rate and counts.
        lowest_hz: assumed to be kept up with until it is measured at the end.
        highest_hz: no higher rate is tried.
    """
    probes: list[tuple[float, Mapping[str, Any]]] = []

    def holds(rate_hz: float) -> bool:
        probes.append((rate_hz, measure(rate_hz)))
        return keeps_up(probes[-1][1])

    low, high = lowest_hz, highest_hz
    while high / low > INTERVAL:
        middle = _tidy(math.sqrt(low * high))
        low, high = (middle, high) if holds(middle) else (low, middle)
    while (step := _tidy(low * STEP)) <= high and holds(step):
        low = step
    rate_hz = low
    while not holds(rate_hz):
        if rate_hz <= lowest_hz:
            return Peak(None, None, _limit(probes, None), probes)
        rate_hz = max(lowest_hz, _tidy(rate_hz / RETREAT))
    return Peak(rate_hz, probes[-1][1], _limit(probes, rate_hz), probes)


def _limit(probes: list[tuple[float, Mapping[str, Any]]], peak_hz: float | None) -> Literal["node", "player", "search"]:
    """What the lowest rate above the peak failed by."""
    failed = [(rate, figures) for rate, figures in probes if not keeps_up(figures) and rate >= (peak_hz or 0)]
    if not failed:
        return "search"
    _, figures = min(failed, key=lambda probe: probe[0])
    return "node" if figures["player_kept_rate"] else "player"


def _tidy(rate_hz: float) -> float:
    return float(f"{rate_hz:.3g}")
