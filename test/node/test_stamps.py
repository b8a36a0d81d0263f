"""Which pictures are processed, by stamp, clock and rate."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mfuser_ros.node.stamps import SECOND_NS, StampGate, age_ns, stamp_ns

NOW = 1_700_000_000 * SECOND_NS


def judge(gate: StampGate, stamp, *, now=NOW, arrival=0, max_age=0.5, max_rate=0.0):
    """The verdict; a picture that is processed is published too."""
    verdict = gate.judge(stamp, now, arrival, max_age=max_age, max_rate=max_rate)
    if verdict.action == "process":
        gate.published(stamp, now, gate.generation)
    return verdict


def seconds(value: float) -> int:
    return round(value * SECOND_NS)


@pytest.mark.parametrize(
    ("sec", "nanosec", "expected"),
    [(5, 7, 5_000_000_007), (0, 0, 0), (-1, 0, None), (5, 1_000_000_000, None), (5, 2**32 - 1, None)],
)
def test_stamp_in_nanoseconds(sec, nanosec, expected):
    assert stamp_ns(SimpleNamespace(sec=sec, nanosec=nanosec)) == expected


@pytest.mark.parametrize(
    ("stamp", "now", "expected"),
    [
        (NOW - 5, NOW, 5),
        (NOW + 5, NOW, -5),
        (None, NOW, None),
        (0, NOW, None),
        (NOW, 0, None),  # use_sim_time without /clock
        (NOW - seconds(3601), NOW, None),  # a bag without use_sim_time
        (NOW - seconds(3599), NOW, seconds(3599)),
    ],
)
def test_age_is_known_only_where_clock_and_stamp_have_one_epoch(stamp, now, expected):
    assert age_ns(stamp, now) == expected


def test_fresh_pictures_in_order_are_processed():
    gate = StampGate()

    assert [judge(gate, NOW + seconds(step / 30)).action for step in range(5)] == ["process"] * 5


def test_picture_older_than_the_last_is_dropped():
    gate = StampGate()
    judge(gate, NOW)

    verdict = judge(gate, NOW - seconds(0.1))

    assert (verdict.action, verdict.warning) == ("drop", "late")
    assert "0.100 s older than the last" in verdict.text


def test_picture_with_the_same_stamp_is_processed():
    gate = StampGate()
    judge(gate, NOW)

    assert judge(gate, NOW) == ("process", "", "")


def test_picture_older_than_one_that_was_never_published_is_processed():
    gate = StampGate()
    gate.judge(NOW, NOW, 0, max_age=0.5, max_rate=0)

    assert judge(gate, NOW - seconds(0.1)).action == "process"


@pytest.mark.parametrize(("age", "max_age", "action"), [(0.49, 0.5, "process"), (0.51, 0.5, "drop"), (9, 0, "process")])
def test_picture_over_max_age_is_dropped(age, max_age, action):
    assert judge(StampGate(), NOW - seconds(age), max_age=max_age).action == action


def test_age_is_not_checked_where_it_is_not_known():
    assert judge(StampGate(), NOW - seconds(7200)) == ("process", "", "")
    assert judge(StampGate(), NOW, now=0) == ("process", "", "")


@pytest.mark.parametrize("stamp", [0, None])
def test_picture_without_a_time_is_processed_with_a_warning(stamp):
    gate = StampGate()
    judge(gate, NOW)

    verdict = judge(gate, stamp)

    assert (verdict.action, verdict.warning) == ("process", "stamp")
    assert judge(gate, NOW - 1).action == "drop"  # what came before is remembered


@pytest.mark.parametrize(("ahead", "warning"), [(0.9, ""), (1.1, "stamp")])
def test_picture_from_the_future_is_processed_with_a_warning_from_one_second_on(ahead, warning):
    verdict = judge(StampGate(), NOW + seconds(ahead))

    assert (verdict.action, verdict.warning) == ("process", warning)


def test_one_picture_from_the_future_does_not_make_those_that_follow_late():
    gate = StampGate()
    judge(gate, NOW + seconds(100))

    assert judge(gate, NOW) == ("process", "", "")


def test_order_is_kept_among_pictures_of_a_clock_that_runs_ahead():
    gate = StampGate()
    judge(gate, NOW + seconds(100))

    assert judge(gate, NOW + seconds(99)).action == "drop"
    assert judge(gate, NOW + seconds(101)).action == "process"


def test_reset_forgets_the_last_stamp():
    gate = StampGate()
    judge(gate, NOW)
    gate.reset()

    assert judge(gate, NOW - seconds(0.1)).action == "process"


def test_picture_that_was_in_work_while_time_jumped_back_is_not_remembered():
    gate = StampGate()
    before = gate.generation
    gate.reset()
    gate.published(NOW, NOW, before)

    assert judge(gate, NOW - seconds(0.1)).action == "process"


@pytest.mark.parametrize(("source_hz", "max_rate"), [(30, 10), (30, 20), (25, 10), (30, 29), (5, 10)])
def test_rate_is_held_whatever_the_source_sends(source_hz, max_rate):
    gate = StampGate()

    actions = [
        judge(
            gate,
            NOW + seconds(step / source_hz),
            now=NOW + seconds(step / source_hz),
            arrival=seconds(1 + step / source_hz),
            max_rate=max_rate,
        ).action
        for step in range(source_hz * 10)
    ]

    assert set(actions) <= {"process", "skip"}
    assert actions.count("process") / 10 == pytest.approx(min(source_hz, max_rate), abs=0.2)
