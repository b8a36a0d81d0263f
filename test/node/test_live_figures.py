"""Figures of a live measurement, worked by hand."""

import pytest

from mfuser_ros.node.live_figures import Played, figures


def test_rates_drops_ages_and_jitter_of_one_camera():
    # sent every 0.1 s; the first, third and fourth have masks, at 0.15, 0.35 and 0.40 s
    run = [Played(0.0, 0.0, 0.15), Played(0.1, 0.1, None), Played(0.2, 0.2, 0.35), Played(0.3, 0.3, 0.4)]

    found = figures({"front": run})

    assert (found["pictures"], found["masks"], found["drops"], found["drop_share"]) == (4, 3, 1, 0.25)
    assert found["wanted_hz"] == found["played_hz"] == 10.0
    assert found["rate_hz"] == 8.0  # 2 intervals in 0.25 s
    assert found["age_p50_ms"] == pytest.approx(150.0)  # of 150, 150, 100
    assert found["age_p99_ms"] == pytest.approx(150.0)
    assert found["jitter_ms"] == pytest.approx(75.0)  # intervals 200 and 50 ms, mean 125
    assert found["jitter_max_ms"] == pytest.approx(75.0)
    assert found["late_max_ms"] == 0.0
    assert found["player_kept_rate"]


def test_player_that_sends_slower_than_due_has_not_kept_its_rate():
    late = [Played(index / 10, index / 9, index / 9 + 0.01) for index in range(10)]
    found = figures({"front": late})
    assert (found["wanted_hz"], found["played_hz"]) == (10.0, 9.0)
    assert not found["player_kept_rate"]
    assert found["late_max_ms"] == pytest.approx(100.0)
    assert found["drops"] == 0


def test_of_several_cameras_counts_add_up_ages_are_pooled_and_the_slowest_rate_counts():
    fast = [Played(index / 10, index / 10, index / 10 + 0.02) for index in range(11)]
    slow = [Played(index / 5, index / 5, index / 5 + 0.04 if index % 2 == 0 else None) for index in range(5)]

    found = figures({"front": fast, "rear": slow})

    assert (found["pictures"], found["masks"], found["drops"], found["drop_share"]) == (16, 14, 2, 0.125)
    assert [camera["rate_hz"] for camera in found["cameras"]] == [10.0, 2.5]
    assert (found["wanted_hz"], found["rate_hz"]) == (5.0, 2.5)
    assert found["age_p50_ms"] == pytest.approx(20.0)  # 11 of the 14 masks
    assert found["age_p99_ms"] == pytest.approx(40.0)


def test_what_cannot_be_told_is_none():
    found = figures({"front": [Played(0.0, 0.0, None), Played(0.1, 0.1, None)], "rear": []})
    assert (found["drops"], found["drop_share"]) == (2, 1.0)
    for name in ("rate_hz", "age_p50_ms", "age_p99_ms", "jitter_ms"):
        assert found[name] is None
    assert found["cameras"][1]["drop_share"] is None
    assert figures({"front": [Played(0.0, 0.0, 0.3)]})["rate_hz"] is None  # one mask has no rate
