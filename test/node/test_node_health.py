"""What diagnostics tell apart: the camera, the way to the node, the model, the device."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from stand_in import StandIn, picture

PICTURE = Path(__file__).resolve().parents[1] / "data" / "pictures" / "highway2_110.jpg"


SLOT_NS = 200_000_000


def levels():
    from diagnostic_msgs.msg import DiagnosticStatus

    return DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    """A real picture, 240x135, sure of every pixel as the stand-in sees it."""
    rgb = cv2.cvtColor(cv2.imread(str(PICTURE)), cv2.COLOR_BGR2RGB)
    small = cv2.resize(rgb, (480, 270), interpolation=cv2.INTER_AREA)
    return np.minimum(small, 199)


class Feed:
    """Sends one picture after the other, evenly stamped: uneven stamps look like lost pictures."""

    def __init__(self, bench) -> None:
        self._bench = bench
        self._begin_ns = bench.now_ns()
        self._number = 0

    def until(self, pictures, text: str, level: bytes) -> dict[str, str]:
        """Send pictures by number until a status of the camera says `text`; its values."""
        after = len(self._bench.reports)

        def send() -> None:
            stamp_ns = self._begin_ns + self._number * SLOT_NS
            self._bench.send(pictures(self._number), header=self._bench.header(stamp_ns=stamp_ns))
            self._number += 1

        def find():
            for report in self._bench.reports[after:]:
                for status in report.status:
                    if status.name == "mfuser: front" and status.level == level and text in status.message:
                        return status
            return None

        status = self._bench.graph.repeat(send, find, f"no status with {text!r}", 30)
        return {entry.key: entry.value for entry in status.values}


def test_trouble_of_the_camera_is_told_from_doubt_of_the_model_and_from_the_device(bench, street):
    ok, warn, error = levels()
    bench = bench(grid__enabled=False, diagnostics__camera_trouble_after=0.5)
    rolled = lambda number: np.roll(street, number, axis=1)  # noqa: E731  a scene that moves

    feed = Feed(bench)

    assert feed.until(rolled, "running", ok)["trouble_in"] == "none"
    for text, level, change in (
        ("black: pictures are black", error, lambda rgb: rgb // 64),
        ("overexposed: pictures are overexposed", warn, lambda rgb: np.maximum(rgb, 253)),
        ("blurred: pictures are blurred", warn, lambda rgb: cv2.GaussianBlur(rgb, (0, 0), 3)),
        ("covered: a part of the pictures is blank", warn, lambda rgb: np.where(np.arange(480)[:, None] < 250, 5, rgb)),
    ):
        values = feed.until(lambda n, change=change: change(rolled(n)).astype(np.uint8), text, level)
        assert values["trouble_in"] == "camera", text
    assert feed.until(lambda _: street, "frozen: pictures do not change", error)["trouble_in"] == "camera"

    bench.segmenter.poison = int(street[0, 0, 0])
    assert feed.until(lambda _: street, "inference: stand-in: scores", error)["trouble_in"] == "camera, device"
    values = feed.until(lambda n: np.concatenate([street[:1], rolled(n)[1:]]), "inference: stand-in", error)
    assert values["trouble_in"] == "device"
    bench.segmenter.poison = None

    def doubtful(number: int) -> np.ndarray:
        rgb = rolled(number).copy()
        rgb[:, :, 1] = np.maximum(rgb[:, :, 1], np.where(np.arange(480) < 400, 200, 0))
        return rgb

    text = "running; the picture is sound and the model does not know"
    assert feed.until(doubtful, text, ok)["trouble_in"] == "model"


def test_configuration_tells_how_far_it_is(bench):
    goes_on = threading.Event()

    def load(settings) -> StandIn:
        assert goes_on.wait(30)
        return StandIn()

    bench = bench(wait=False, options={"load": load})
    try:
        bench.wait(lambda: bench.lines("configuring, 1 of 3: loading model small for device auto"), "no progress")
    finally:
        goes_on.set()
    bench.wait_until_active()

    for text in ("2 of 3: warming up stand-in on cpu", "3 of 3: making the publishers"):
        assert bench.lines(f"configuring, {text}")


def test_progress_of_a_configuration_is_a_warning_in_diagnostics(bench):
    bench = bench(wait=False, autostart=False)
    bench.wait_for_status(levels()[1], "not configured")

    assert bench.transition("configure")

    for text in ("1 of 3: loading model small", "2 of 3: warming up stand-in", "3 of 3: making the publishers"):
        bench.wait_for_status(levels()[1], f"configuring, {text}", after=0)


def test_processing_time_is_watched_under_autowares_keys(bench):
    ok, warn, error = levels()
    bench = bench(grid__enabled=False)
    bench.wait_for_status(ok, "waiting for the first inference", name="processing_time_status")
    bench.segment(picture())
    bench.wait_for_status(ok, "in time", name="processing_time_status")
    assert bench.values("processing_time_status")["is_processing_time_ms_in_expected_range"] == "True"
    assert bench.values("processing_time_status")["inference_time_ms"] == "2.0"

    assert bench.set_parameters(
        diagnostics__max_allowed_processing_time_ms=0.0, diagnostics__max_acceptable_consecutive_delay_ms=60_000.0
    )[0].successful
    bench.segment(picture())
    bench.wait_for_status(warn, "0 ms are allowed", name="processing_time_status")
    assert bench.set_parameters(diagnostics__max_acceptable_consecutive_delay_ms=0.0)[0].successful
    bench.segment(picture())
    bench.wait_for_status(error, "check the device", name="processing_time_status")

    assert bench.status("front").level == ok  # the camera is not to blame
    assert bench.transition("deactivate")
    bench.wait_for_status(ok, "waiting for the first inference", name="processing_time_status")


def test_hanging_network_is_seen_while_it_hangs(bench):
    bench = bench(
        grid__enabled=False,
        diagnostics__max_allowed_processing_time_ms=1.0,
        diagnostics__max_acceptable_consecutive_delay_ms=1.0,
    )
    bench.segmenter.gate.clear()
    bench.send(picture())

    bench.wait_for_status(levels()[2], "check the device", name="processing_time_status")

    assert bench.masks == []
    bench.segmenter.gate.set()


def test_memory_and_drops_and_age_of_the_result_are_in_every_status(bench):
    bench = bench(grid__enabled=False)
    bench.segment(picture())
    bench.send(picture(), width=0)
    bench.wait(lambda: bench.values().get("dropped_frames") == "1", "one dropped frame")
    values = bench.values()

    assert 50 < int(values["device_memory_mb"]) < int(values["device_memory_total_mb"])
    assert int(values["device_memory_free_mb"]) > 0
    assert values["batch_limit"] == "1"
    first = float(values["published_age_ms"])
    assert 0 < first < 60_000
    bench.wait(lambda: float(bench.values()["published_age_ms"]) > first, "the result does not grow older")


def test_picture_ends_the_fault_of_a_publisher_that_could_not_be_heard(bench):
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    bench = bench(cameras=["front", "left"], grid__enabled=False, input_reliability="reliable")
    text = "qos: nothing comes from a publisher of /front/image_raw, it offers another RELIABILITY"

    rival = bench.graph.publisher(
        Image, "/front/image_raw", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    for _ in range(3):  # it lasts
        status = bench.wait_for_status(levels()[1], text, name="front")
    assert {entry.key: entry.value for entry in status.values}["trouble_in"] in ("transport", "camera, transport")
    assert "qos" not in bench.status("left").message

    bench.graph.node.destroy_publisher(rival)
    bench.segment(picture())
    bench.wait(lambda: "qos" not in bench.status("front").message, "the fault is over")


def test_camera_info_that_cannot_be_heard_is_told(bench):
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import CameraInfo

    name = "qos_overrides./front/camera_info.subscription.reliability"
    bench = bench(wait=False, **{name: "reliable"})
    bench.graph.wait(lambda: bench.graph.node.count_subscribers("/front/camera_info") >= 1, "no subscription")

    from rclpy.qos import ReliabilityPolicy

    bench.graph.publisher(
        CameraInfo, "/front/camera_info", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )

    bench.wait_for_status(levels()[1], "qos_camera_info: nothing comes from a publisher of /front/camera_info")
