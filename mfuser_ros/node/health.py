"""The state of one camera as diagnostics tell it: counters, rates, latencies and faults, without ROS."""

from __future__ import annotations

import threading
from collections import deque
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from mfuser_ros.node.stamps import SECOND_NS, age_ns

WINDOW_NS = 5 * SECOND_NS
MIN_PICTURES_FOR_LOSS = 5
MUCH_UNKNOWN = 0.5
"""Median share of unknown pixels above which the model is said to be in doubt: no fault, but worth a word."""

_SOURCES = {
    "camera": (
        "bad_image", "black", "blurred", "covered", "encoding", "frozen", "overexposed", "rivals", "roi", "silent",
        "too_large",
    ),
    "transport": ("late", "loss", "qos", "qos_camera_info"),
    "clock": ("stamp",),
    "calibration": (
        "calibration", "frame_id", "no_camera_info", "no_pose", "odometry", "pose", "pose_drift", "size_mismatch", "tf",
    ),
    "device": ("drivable_area", "inference", "processing"),
}  # fmt: skip
_SOURCE_OF = {kind: source for source, kinds in _SOURCES.items() for kind in kinds}


class Level(IntEnum):
    """Severity, in the order of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


class Fault(NamedTuple):
    """Something that is wrong, with its kind and one line."""

    level: Level
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"

    @property
    def source(self) -> str:
        """What is to blame: camera, transport, clock, calibration or device; node for what the table lacks."""
        return _SOURCE_OF.get(self.kind, "node")


class Limits(NamedTuple):
    """When a camera counts as late or silent, seconds."""

    warn_latency: float
    error_latency: float
    stale_after: float


class Report(NamedTuple):
    """One status of a camera."""

    level: Level
    message: str
    values: dict[str, str]


class _Sample(NamedTuple):
    finished_ns: int
    processing_ms: float
    latency_ms: float | None
    unknown_share: float


class CameraHealth:
    """Collects what happens to the pictures of one camera; safe to call from several threads.

    An event (a dropped picture) stays from one regular report to the next. A condition (a failing network) stays until
    it is cleared. All times are those of a steady clock in nanoseconds, but for stamps.
    """

    def __init__(self, device: str, model: str, sha256: str) -> None:
        self._lock = threading.Lock()
        self._identity = {"device": device, "model": model, "model_sha256": sha256}
        self._counters = dict.fromkeys(("frames_in", "frames_out", "dropped_late", "dropped_bad", "replaced"), 0)
        self._arrivals: deque[tuple[int, int | None]] = deque()
        self._samples: deque[_Sample] = deque()
        self._events: dict[str, Fault] = {}
        self._told: dict[str, Fault] = {}  # events of the last regular report
        self._conditions: dict[str, Fault] = {}
        self._picture = {"encoding": "", "size": "", "unknown_share": ""}
        self._published_stamp_ns: int | None = None
        self._last_error = ""
        self._watched_since_ns: int | None = None
        self._last_arrival_ns: int | None = None

    def watch(self, now_ns: int | None) -> None:
        """Expect pictures from this time on; None: expect none."""
        with self._lock:
            self._watched_since_ns = now_ns
            self._last_arrival_ns = self._published_stamp_ns = None
            self._arrivals.clear()
            self._samples.clear()
            self._events.clear()
            self._told.clear()
            self._conditions.clear()

    def arrived(self, now_ns: int, stamp: int | None) -> None:
        """A picture came in, with its stamp in nanoseconds."""
        with self._lock:
            self._counters["frames_in"] += 1
            self._last_arrival_ns = now_ns
            self._arrivals.append((now_ns, stamp))
            _forget(self._arrivals, now_ns)

    def replaced(self) -> None:
        """A newer picture took the place of one that the network had no time for."""
        with self._lock:
            self._counters["replaced"] += 1

    def dropped(self, counter: str, fault: Fault) -> None:
        """A picture gave no mask; `counter` is dropped_late or dropped_bad."""
        with self._lock:
            self._counters[counter] += 1
            self._note(fault)

    def note(self, fault: Fault) -> None:
        """Something was wrong for a moment."""
        with self._lock:
            self._note(fault)

    def _note(self, fault: Fault) -> None:
        self._last_error = str(fault)
        worst = self._events.get(fault.kind)
        if worst is None or fault.level >= worst.level:
            self._events[fault.kind] = fault

    def set_condition(self, fault: Fault) -> bool:
        """Something is wrong until it is cleared; returns whether that is news."""
        with self._lock:
            known = self._conditions.get(fault.kind)
            self._conditions[fault.kind] = fault
            if known == fault:
                return False
            self._last_error = str(fault)
            return known is None

    def clear_condition(self, kind: str) -> bool:
        """The thing of this kind is right again; returns whether it was wrong."""
        with self._lock:
            return self._conditions.pop(kind, None) is not None

    def has_condition(self, kind: str) -> bool:
        """Whether the thing of this kind is wrong."""
        with self._lock:
            return kind in self._conditions

    def published(
        self, now_ns: int, stamp: int | None, *, processing_ms: float, latency_ms: float | None, unknown_share: float
    ) -> None:
        """A mask went out. `latency_ms` is None where clock and stamp cannot be compared."""
        with self._lock:
            self._counters["frames_out"] += 1
            self._samples.append(_Sample(now_ns, processing_ms, latency_ms, unknown_share))
            self._published_stamp_ns = stamp
            self._picture["unknown_share"] = f"{unknown_share:.4f}"

    def describe(self, encoding: str, width: int, height: int) -> None:
        """Encoding and size of the last picture."""
        with self._lock:
            self._picture |= {"encoding": encoding, "size": f"{width}x{height}"}

    def silent_for_ns(self, now_ns: int) -> int | None:
        """Time since the last picture or since pictures were expected; None while none is expected."""
        with self._lock:
            return self._silent_for_ns(now_ns)

    def _silent_for_ns(self, now_ns: int) -> int | None:
        if self._watched_since_ns is None:
            return None
        return now_ns - (self._last_arrival_ns or self._watched_since_ns)

    def report(self, now_ns: int, limits: Limits, *, regular: bool, clock_ns: int = 0) -> Report:
        """The status now. An event is in every report up to the second regular one, which come once a second.

        Args:
            now_ns: the steady clock.
            limits: by the parameters.
            regular: it is one of those that come once a second.
            clock_ns: the clock that stamps are compared with; 0 while it does not run.
        """
        with self._lock:
            if regular:
                self._told, self._events = self._events, {}
            events = self._told | self._events
            faults = [*events.values(), *self._conditions.values(), *self._derived(now_ns, limits)]
            level = max((fault.level for fault in faults), default=Level.OK)
            texts = [str(fault) for fault in sorted(faults, key=lambda fault: -fault.level)]
            values = self._values(now_ns, clock_ns)
            sources = sorted({fault.source for fault in faults})
            doubt = self._doubt() if not faults else ""
            values["trouble_in"] = ", ".join(sources) or ("model" if doubt else "none")
            if self._watched_since_ns is None and not texts:
                return Report(Level.WARN, "not active: configure and activate the node", values)
            # the same fault may be an event and a condition
            return Report(level, "; ".join(dict.fromkeys(texts)) or f"running{doubt}", values)

    def _doubt(self) -> str:
        shares = [sample.unknown_share for sample in self._samples]
        if not shares or (median := float(np.median(shares))) <= MUCH_UNKNOWN:
            return ""
        return f"; the picture is sound and the model does not know {median:.0%} of it"

    def _derived(self, now_ns: int, limits: Limits) -> list[Fault]:
        faults = []
        silent_ns = self._silent_for_ns(now_ns)
        if silent_ns is not None and silent_ns > limits.stale_after * SECOND_NS:
            text = f"no picture for {limits.stale_after:g} s or more: check the topic, the camera and the QoS"
            faults.append(Fault(Level.ERROR, "silent", text))
        latencies = self._latencies()
        if latencies and silent_ns is not None:
            median_s = float(np.median(latencies)) / 1000
            for level, limit in ((Level.ERROR, limits.error_latency), (Level.WARN, limits.warn_latency)):
                if median_s > limit:
                    faults.append(Fault(level, "late", f"median latency {median_s:.2f} s is over {limit:g} s"))
                    break
        received = self._received_share()
        if received < 0.5:
            text = f"only {received:.0%} of the pictures arrive: use config/fastdds_shm.xml, or input_reliability"
            faults.append(Fault(Level.WARN, "loss", text))
        return faults

    def _received_share(self) -> float:
        """Pictures that came, of those that the stamps say were sent: gaps are multiples of the smallest one."""
        stamps = [stamp for _, stamp in self._arrivals if stamp]
        gaps = np.diff(stamps)
        if len(stamps) < MIN_PICTURES_FOR_LOSS or gaps.min() <= 0:
            return 1.0
        return float(len(gaps) * gaps.min() / (stamps[-1] - stamps[0]))

    def _latencies(self) -> list[float]:
        return [sample.latency_ms for sample in self._samples if sample.latency_ms is not None]

    def _values(self, now_ns: int, clock_ns: int) -> dict[str, str]:
        _forget(self._arrivals, now_ns)
        while self._samples and now_ns - self._samples[0].finished_ns > WINDOW_NS:
            self._samples.popleft()
        processing = [sample.processing_ms for sample in self._samples]
        latencies = self._latencies()
        published_age_ns = age_ns(self._published_stamp_ns, clock_ns)
        dropped = sum(self._counters[name] for name in ("dropped_late", "dropped_bad", "replaced"))
        return {
            **{name: str(count) for name, count in self._counters.items()},
            "dropped_frames": str(dropped),
            "rate_in_hz": _rate([arrival for arrival, _ in self._arrivals]),
            "rate_out_hz": _rate([sample.finished_ns for sample in self._samples]),
            "processing_time_ms": _percentile(processing, 50),
            "pipeline_latency_ms": _percentile(latencies, 50),
            "pipeline_latency_p95_ms": _percentile(latencies, 95),
            "published_age_ms": "n/a" if published_age_ns is None else f"{published_age_ns / 1e6:.1f}",
            **self._picture,
            **self._identity,
            "last_error": self._last_error,
        }


def _forget(arrivals: deque[tuple[int, int | None]], now_ns: int) -> None:
    while arrivals and now_ns - arrivals[0][0] > WINDOW_NS:
        arrivals.popleft()


def _rate(times_ns: list[int]) -> str:
    if len(times_ns) < 2 or times_ns[-1] == times_ns[0]:
        return "0.0"
    return f"{(len(times_ns) - 1) * SECOND_NS / (times_ns[-1] - times_ns[0]):.1f}"


def _percentile(values: list[float], q: float) -> str:
    return f"{np.percentile(values, q):.1f}" if values else "n/a"
