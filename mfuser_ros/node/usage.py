"""Processor time and memory of a process while it works."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import psutil

EVERY_S = 0.5

FIGURES = ("cpu_percent", "cpu_max_percent", "memory_mb", "others_cpu_percent")


class _Sample(NamedTuple):
    at_s: float
    used_s: float  # of processor time, by the process
    own_s: float  # likewise, by this process
    memory_mb: float


class UsageMeter:
    """Samples a process, this one and the machine in a thread while a block runs.

    Processor time is in percent of one core, memory in MB of 10^6 bytes.
    """

    def __init__(self, pid: int) -> None:
        """Look at the process with this id; one that has ended gives no figures."""
        self._pid = pid
        self._ended = threading.Event()
        self._samples: list[_Sample] = []
        self._busy: list[float] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Sample while the block runs; what was sampled before is forgotten."""
        self._samples, self._busy = [], []
        self._ended.clear()
        thread = threading.Thread(target=self._watch, name="usage", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def figures(self) -> dict[str, Any]:  # JSON
        """Of the last block; None where nothing could be measured.

        `cpu_percent` over the whole time, `cpu_max_percent` of half a second, largest `memory_mb`, and
        `others_cpu_percent`: what neither the process nor this one used of the machine, in percent of all its cores.
        """
        samples = self._samples
        span_s = samples[-1].at_s - samples[0].at_s if samples else 0.0
        if span_s <= 0:
            return dict.fromkeys(FIGURES)
        used = 100 * (samples[-1].used_s - samples[0].used_s) / span_s
        own = 100 * (samples[-1].own_s - samples[0].own_s) / span_s
        parts = [100 * (b.used_s - a.used_s) / (b.at_s - a.at_s) for a, b in pairwise(samples) if b.at_s > a.at_s]
        busy = sum(self._busy) / len(self._busy)
        values = (
            used,
            max(parts),
            max(sample.memory_mb for sample in samples),
            max(0.0, busy - (used + own) / (psutil.cpu_count() or 1)),
        )
        return {name: round(value, 1) for name, value in zip(FIGURES, values, strict=True)}

    def _watch(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # who started the process notices that it has ended
            process, own = psutil.Process(self._pid), psutil.Process()
            psutil.cpu_percent(None)
            self._samples.append(_sample(process, own))
            ended = False
            while not ended:
                ended = self._ended.wait(EVERY_S)
                self._samples.append(_sample(process, own))
                self._busy.append(psutil.cpu_percent(None))


def _sample(process: psutil.Process, own: psutil.Process) -> _Sample:
    return _Sample(time.monotonic(), _used_s(process), _used_s(own), process.memory_info().rss / 1e6)


def _used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
