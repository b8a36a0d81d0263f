"""An hour of the vehicle's time in seconds of ours: the clock is the test's, and it jumps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stand_in import picture

S = 10**9
START_S = 1_000_000


def levels():
    from diagnostic_msgs.msg import DiagnosticStatus

    return DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class FakeClock:
    """/clock of a bag or a simulator."""

    def __init__(self, bench: Any) -> None:
        from rosgraph_msgs.msg import Clock

        self._bench = bench
        self._message = Clock()
        self._publisher = bench.graph.publisher(Clock, "/clock")
        bench.graph.wait_for_match(self._publisher)
        self.now_ns = 0

    def set(self, now_ns: int) -> None:
        """Wait until the node's clock shows this time."""
        self.now_ns = now_ns
        self._message.clock.sec, self._message.clock.nanosec = divmod(now_ns, S)
        self._bench.graph.repeat(
            lambda: self._publisher.publish(self._message),
            lambda: self._bench.node.get_clock().now().nanoseconds == now_ns,
            f"the node's clock does not show {now_ns}",
            20,
        )

    def segment(self, rgb: np.ndarray, *, age_s: float = 0.05) -> Any:
        """The mask of a picture that was taken so long ago."""
        stamp_ns = self.now_ns - int(age_s * S)
        return self._bench.segment(rgb, header=self._bench.header(stamp_ns=stamp_ns))


@pytest.fixture
def drive(bench):
    """Makes a node that lives by a fake clock."""

    def make(**parameters: Any) -> tuple[Any, FakeClock]:
        made = bench(use_sim_time=True, **parameters)
        clock = FakeClock(made)
        clock.set(START_S * S)
        return made, clock

    return make


def test_hour_with_jumps_in_both_directions_loses_nothing_and_leaks_nothing(drive, road, forward):
    """A picture every 30 s for an hour; at each quarter the clock jumps, forwards or back."""
    bench, clock = drive(front__pose=forward, max_age=1.0, max_rate=0.0)
    bench.segment_with_grid(road, header=bench.header(stamp_ns=clock.now_ns))
    jumps = {30: 3000 * S, 60: -6000 * S, 90: 500 * S, 119: -1 * S}
    stamps = []
    for step in range(120):
        clock.set(clock.now_ns + 30 * S + jumps.get(step, 0))
        mask = clock.segment(road)
        stamps.append(mask.header.stamp.sec * S + mask.header.stamp.nanosec)
        bench.wait(lambda mask=mask: bench.grids[-1].header.stamp == mask.header.stamp, "no grid")

    passed_s = (np.diff(stamps) / S).tolist()
    assert [round(value) for value in passed_s if round(value) != 30] == [3030, -5970, 530, 29]
    assert sum(30 for _ in stamps) == 3600
    assert all(0 in grid.data for grid in bench.grids[-120:])
    values = bench.values()
    assert (values["dropped_late"], values["dropped_bad"]) == ("0", "0")
    assert float(values["pipeline_latency_p95_ms"]) == pytest.approx(50.0, abs=0.1)  # by the clock of the drive
    assert len(bench.lines("time has jumped backwards")) == 1  # back by 1 s on the way 30 s ahead is none
    bench.wait_for_status(levels()[0], "running")


def test_picture_from_before_a_jump_back_is_no_yardstick_for_what_comes(drive):
    bench, clock = drive(grid__enabled=False, max_rate=1.0, max_age=1.0)
    clock.segment(picture())

    clock.set((START_S - 900) * S)  # a bag that is played again
    again = clock.segment(picture())

    assert again.header.stamp.sec == START_S - 901
    assert bench.lines("time has jumped backwards")
    bench.wait(lambda: bench.values().get("frames_out") == "2", "two masks")
    assert bench.values()["dropped_late"] == "0"


def test_jump_forwards_makes_old_pictures_old(drive):
    bench, clock = drive(grid__enabled=False, max_age=1.0)
    clock.segment(picture())

    clock.set((START_S + 600) * S)
    bench.send(picture(), header=bench.header(stamp_ns=(START_S + 1) * S))

    bench.wait_for_status(levels()[1], "late: picture is 599.000 s old, max_age is 1 s")
    clock.segment(picture())
    assert len(bench.masks) == 2


def test_silence_is_measured_by_a_clock_that_does_not_jump(drive, road, forward):
    bench, clock = drive(front__pose=forward)
    bench.segment_with_grid(road, header=bench.header(stamp_ns=clock.now_ns))
    grids = len(bench.grids)

    clock.set((START_S + 3600) * S)  # an hour in an instant is no hour of silence
    clock.segment(road)
    bench.wait(lambda: len(bench.grids) > grids, "no grid")

    assert 0 in bench.grids[-1].data
    assert "silent" not in bench.status().message
    assert bench.set_parameters(diagnostics__stale_after=0.3)[0].successful  # and a clock that stands is no rest
    bench.wait_for_status(levels()[2], "silent: no picture")
    bench.wait(lambda: set(bench.grids[-1].data) == {-1}, "the grid stands")
    assert bench.grids[-1].header.stamp.sec in (START_S + 3600, START_S + 3599)
