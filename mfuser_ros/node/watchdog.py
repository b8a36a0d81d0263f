"""Whether batches are done in time: the status that Autoware's detectors publish under the same keys. Needs no ROS."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from mfuser_ros.node.health import Level, Report

if TYPE_CHECKING:
    from mfuser_ros.inference import Timing  # torch is loaded when the node is configured

NAME = "processing_time_status"
STAGES = ("preprocess", "inference", "postprocess")


class TimeLimits(NamedTuple):
    """When batches take too long, milliseconds."""

    max_allowed_processing_time_ms: float
    max_acceptable_consecutive_delay_ms: float


class Watchdog:
    """Times of the batches; safe to call from several threads. Times are of a steady clock in nanoseconds.

    Sources of keys and rules: diagnose_processing_time of autoware_lidar_centerpoint and autoware_bevfusion; the keys
    of the stages are those of autoware_camera_streampetr.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms: float | None = None
        self._stages: Timing | None = None
        self._in_time_ns = 0
        self._begun_ns: int | None = None

    def reset(self) -> None:
        """The node was inactive."""
        with self._lock:
            self._last_ms = self._stages = self._begun_ns = None

    def begin(self, now_ns: int) -> None:
        """Work on a batch begins."""
        with self._lock:
            self._begun_ns = now_ns

    def end(self, now_ns: int, limits: TimeLimits, stages: Timing | None) -> None:
        """All of the batch is published."""
        with self._lock:
            if self._begun_ns is None:  # the node was deactivated meanwhile, and did not wait
                return
            first = self._last_ms is None
            self._last_ms = (now_ns - self._begun_ns) / 1e6
            if first or self._last_ms <= limits.max_allowed_processing_time_ms:
                self._in_time_ns = now_ns
            self._stages, self._begun_ns = stages, None

    def report(self, now_ns: int, limits: TimeLimits) -> Report:
        """The status now; a batch that is in work for longer than the last took counts with its time so far."""
        with self._lock:
            running_ms = None if self._begun_ns is None else (now_ns - self._begun_ns) / 1e6
            times = [time for time in (self._last_ms, running_ms) if time is not None]
            if self._last_ms is None and (running_ms or 0) <= limits.max_allowed_processing_time_ms:
                return Report(Level.OK, "waiting for the first inference", _values("n/a", "n/a", None, True, True))
            slowest_ms = max(times)
            in_time = slowest_ms <= limits.max_allowed_processing_time_ms
            since_ns = self._in_time_ns if self._last_ms is not None or self._begun_ns is None else self._begun_ns
            delay_ms = 0.0 if in_time else (now_ns - since_ns) / 1e6
            not_for_long = delay_ms <= limits.max_acceptable_consecutive_delay_ms
            values = _values(f"{slowest_ms:.1f}", f"{delay_ms:.1f}", self._stages, in_time, not_for_long)
        if in_time:
            return Report(Level.OK, "in time", values)
        text = f"a batch took {slowest_ms:.1f} ms, {limits.max_allowed_processing_time_ms:g} ms are allowed"
        if not_for_long:
            return Report(Level.WARN, text, values)
        return Report(Level.ERROR, f"{text}, and so it is for {delay_ms / 1000:.1f} s: check the device", values)


def _values(time: str, delay: str, stages: Timing | None, in_time: bool, not_for_long: bool) -> dict[str, str]:
    # Autoware's diagnostics write booleans so
    return {
        "is_processing_time_ms_in_expected_range": str(in_time),
        "processing_time_ms": time,
        **{
            f"{stage}_time_ms": "n/a" if stages is None else f"{getattr(stages, f'{stage}_ms'):.1f}" for stage in STAGES
        },
        "is_consecutive_processing_delay_in_range": str(not_for_long),
        "consecutive_processing_delay_ms": delay,
    }
