"""What diagnostics say of a camera."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mfuser_ros.node
from mfuser_ros.node.camera_trouble import TEXTS
from mfuser_ros.node.health import CameraHealth, Fault, Level, Limits

LIMITS = Limits(warn_latency=0.3, error_latency=1.0, stale_after=1.0)
S = 1_000_000_000


def watched() -> CameraHealth:
    health = CameraHealth("cpu", "small", "ab" * 32)
    health.watch(0)
    return health


def report(health: CameraHealth, now_ns: int, *, regular: bool = True, clock_ns: int = 0):
    return health.report(now_ns, LIMITS, regular=regular, clock_ns=clock_ns)


def run(
    health: CameraHealth,
    *,
    hz: float = 10.0,
    seconds: float = 5.0,
    latency_ms: float | None = 100.0,
    unknown_share: float = 0.25,
) -> int:
    """A camera that works for a while; the time of its last picture."""
    now_ns = 0
    for step in range(int(hz * seconds)):
        now_ns = int(step / hz * S) + 1
        health.arrived(now_ns, 7 * S + now_ns)
        health.published(now_ns, 7 * S + now_ns, processing_ms=50.0, latency_ms=latency_ms, unknown_share=unknown_share)
    return now_ns


def test_working_camera_is_ok_with_all_keys():
    health = watched()
    health.describe("rgb8", 640, 480)
    now_ns = run(health)

    level, message, values = report(health, now_ns, clock_ns=7 * S + now_ns + S // 8)

    assert (level, message) == (Level.OK, "running")
    assert values == {
        "frames_in": "50",
        "frames_out": "50",
        "dropped_late": "0",
        "dropped_bad": "0",
        "replaced": "0",
        "dropped_frames": "0",
        "rate_in_hz": "10.0",
        "rate_out_hz": "10.0",
        "processing_time_ms": "50.0",
        "pipeline_latency_ms": "100.0",
        "pipeline_latency_p95_ms": "100.0",
        "published_age_ms": "125.0",
        "encoding": "rgb8",
        "size": "640x480",
        "unknown_share": "0.2500",
        "device": "cpu",
        "model": "small",
        "model_sha256": "ab" * 32,
        "last_error": "",
        "trouble_in": "none",
    }


def test_camera_that_nobody_watches_is_not_active():
    assert report(CameraHealth("cpu", "small", ""), 5).level == Level.WARN


def test_camera_is_silent_after_stale_after_without_a_picture():
    health = watched()

    assert report(health, S).level == Level.OK
    silent = report(health, S + 1)

    assert silent.level == Level.ERROR
    assert silent.message.startswith("silent: ")


def test_picture_ends_silence():
    health = watched()
    report(health, 2 * S)
    health.arrived(2 * S, S)

    assert report(health, 2 * S + 1).level == Level.OK


def test_dropped_picture_is_told_by_exactly_one_regular_report():
    health = watched()
    health.arrived(1, 1)
    health.dropped("dropped_bad", Fault(Level.WARN, "bad_image", "step 3"))

    assert report(health, 2, regular=False).level == Level.WARN
    told = report(health, 3, regular=True)
    assert report(health, 4, regular=False).level == Level.WARN
    after = report(health, 5, regular=True)

    assert (told.level, told.message, told.values["dropped_bad"]) == (Level.WARN, "bad_image: step 3", "1")
    assert (after.level, after.values["dropped_bad"]) == (Level.OK, "1")
    assert after.values["last_error"] == "bad_image: step 3"


def test_condition_lasts_until_it_is_cleared():
    health = watched()
    health.arrived(1, 1)

    assert health.set_condition(Fault(Level.ERROR, "inference", "NaN"))
    assert not health.set_condition(Fault(Level.ERROR, "inference", "out of memory"))
    assert [report(health, now).message for now in (2, 3)] == ["inference: out of memory"] * 2
    assert health.clear_condition("inference")
    assert not health.clear_condition("inference")
    assert report(health, 4).level == Level.OK


def test_worst_fault_comes_first():
    health = watched()
    health.arrived(1, 1)
    health.note(Fault(Level.WARN, "stamp", "is 0"))
    health.set_condition(Fault(Level.ERROR, "calibration", "k[0] is 0"))

    assert report(health, 2)[:2] == (Level.ERROR, "calibration: k[0] is 0; stamp: is 0")


def test_latency_over_its_limits_is_told():
    for latency_ms, level in ((299.0, Level.OK), (400.0, Level.WARN), (1500.0, Level.ERROR), (None, Level.OK)):
        health = watched()
        now_ns = run(health, latency_ms=latency_ms)

        found = report(health, now_ns)

        assert found.level == level, latency_ms
        assert found.values["pipeline_latency_ms"] == ("n/a" if latency_ms is None else f"{latency_ms:.1f}")


def test_pictures_lost_on_the_way_are_told():
    health = watched()
    for index in (0, 1, 5, 9, 14, 18):  # 6 of 19
        health.arrived(1 + index * S // 30, 9 * S + index * S // 30)

    found = report(health, S)

    assert found.level == Level.WARN
    assert "loss: only 28% of the pictures arrive" in found.message


def test_slow_replay_of_close_stamps_is_no_loss():
    health = watched()
    for index in range(10):
        health.arrived(1 + index * S // 2, 9 * S + index * S // 30)

    assert report(health, 9 * S // 2 + 2).level == Level.OK


def test_rates_forget_what_is_longer_ago_than_the_window():
    health = watched()
    run(health, hz=10, seconds=2)
    for step in range(21):
        health.arrived(20 * S + step * S // 5, 30 * S + step * S // 5)

    values = report(health, 24 * S + 1).values

    assert (values["rate_in_hz"], values["rate_out_hz"]) == ("5.0", "0.0")


def test_much_unknown_in_a_sound_picture_is_doubt_of_the_model_and_no_fault():
    health = watched()
    now_ns = run(health, unknown_share=0.75)

    level, message, values = report(health, now_ns)

    assert (level, values["trouble_in"]) == (Level.OK, "model")
    assert message == "running; the picture is sound and the model does not know 75% of it"
    health.set_condition(Fault(Level.WARN, "blurred", "clean the lens"))
    assert report(health, now_ns).values["trouble_in"] == "camera"


def test_sources_of_all_faults_are_named():
    health = watched()
    health.arrived(1, 1)
    for kind in ("stamp", "inference", "tf", "loss"):
        health.set_condition(Fault(Level.WARN, kind, ""))

    assert report(health, 2).values["trouble_in"] == "calibration, clock, device, transport"


def test_same_fault_as_event_and_condition_is_told_once():
    health = watched()
    health.arrived(1, 1)
    fault = Fault(Level.WARN, "qos", "RELIABILITY")
    health.note(fault)
    health.set_condition(fault)

    assert report(health, 2).message == "qos: RELIABILITY"


def test_every_kind_of_fault_has_a_source_and_is_documented():
    folder = Path(mfuser_ros.node.__file__).parent
    text = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.py"))
    kinds = set(re.findall(r'Fault\(\s*Level\.\w+, "(\w+)"', text)) | set(TEXTS)
    assert {"inference", "tf", "silent", "black"} <= kinds

    assert [kind for kind in sorted(kinds) if Fault(Level.OK, kind, "").source == "node"] == []
    page = folder.parents[1] / "docs" / "node.md"
    if not page.exists():
        pytest.skip("needs the source checkout")
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in page.read_text(encoding="utf-8")] == []
