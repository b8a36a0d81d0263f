"""The processing-time watchdog, under the keys of Autoware's detectors."""

from __future__ import annotations

from mfuser_ros.inference import Timing
from mfuser_ros.node.health import Level
from mfuser_ros.node.watchdog import TimeLimits, Watchdog

MS = 1_000_000
LIMITS = TimeLimits(max_allowed_processing_time_ms=200.0, max_acceptable_consecutive_delay_ms=1000.0)


def batch(watchdog: Watchdog, start_ms: int, took_ms: int) -> int:
    """One batch; the time of its end."""
    watchdog.begin(start_ms * MS)
    watchdog.end((start_ms + took_ms) * MS, LIMITS, Timing(10.0, 80.0, 5.0))
    return start_ms + took_ms


def report(watchdog: Watchdog, now_ms: int):
    return watchdog.report(now_ms * MS, LIMITS)


def test_batch_in_time_is_ok_with_autowares_keys():
    watchdog = Watchdog()
    now = batch(watchdog, 0, 150)

    level, message, values = report(watchdog, now + 20)

    assert (level, message) == (Level.OK, "in time")
    assert values == {
        "is_processing_time_ms_in_expected_range": "True",
        "processing_time_ms": "150.0",
        "preprocess_time_ms": "10.0",
        "inference_time_ms": "80.0",
        "postprocess_time_ms": "5.0",
        "is_consecutive_processing_delay_in_range": "True",
        "consecutive_processing_delay_ms": "0.0",
    }


def test_before_the_first_batch_it_waits():
    level, message, values = report(Watchdog(), 5000)

    assert (level, message) == (Level.OK, "waiting for the first inference")
    assert values["processing_time_ms"] == "n/a"


def test_slow_batch_is_a_warning_and_slow_batches_for_long_an_error():
    watchdog = Watchdog()
    now = batch(watchdog, 0, 150)
    now = batch(watchdog, now, 250)

    once = report(watchdog, now)
    now = batch(watchdog, now, 900)
    long = report(watchdog, now)
    now = batch(watchdog, now, 199)

    assert once.level == Level.WARN
    assert once.message.startswith("a batch took 250.0 ms, 200 ms are allowed")
    assert once.values["consecutive_processing_delay_ms"] == "250.0"
    assert (long.level, long.values["consecutive_processing_delay_ms"]) == (Level.ERROR, "1150.0")
    assert long.values["is_consecutive_processing_delay_in_range"] == "False"
    assert report(watchdog, now).level == Level.OK


def test_first_batch_that_is_slow_does_not_count_from_the_beginning():
    watchdog = Watchdog()
    now = batch(watchdog, 10_000, 1500)

    assert report(watchdog, now)[0] == Level.WARN
    assert report(watchdog, now).values["consecutive_processing_delay_ms"] == "0.0"


def test_batch_that_hangs_is_seen_while_it_hangs():
    watchdog = Watchdog()
    now = batch(watchdog, 0, 100)
    watchdog.begin(now * MS)

    assert report(watchdog, now + 150).level == Level.OK
    assert report(watchdog, now + 300).level == Level.WARN
    assert report(watchdog, now + 1300).level == Level.ERROR


def test_first_batch_that_hangs_is_seen():
    watchdog = Watchdog()
    watchdog.begin(0)

    assert report(watchdog, 100).level == Level.OK
    assert report(watchdog, 1300).level == Level.ERROR


def test_inactive_node_forgets():
    watchdog = Watchdog()
    batch(watchdog, 0, 900)
    watchdog.reset()

    assert report(watchdog, 10_000).message == "waiting for the first inference"
