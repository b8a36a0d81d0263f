"""Several cameras in one node: one batch over the newest picture of each, and none holds up another."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from stand_in import picture

from mfuser_ros.node.worker import Worker

SENT = 45
PERIOD_S = 1 / 30


def levels():
    from diagnostic_msgs.msg import DiagnosticStatus

    return DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.fixture
def log(monkeypatch) -> list[tuple[str, dict[str, str]]]:
    """What arrives at the worker and what it takes, in the order in which the worker sees it."""
    events: list[tuple[str, dict[str, str]]] = []
    put, take = Worker.put, Worker._take

    def logged_put(self, camera: str, frame: Any) -> bool:
        with self._changed:
            events.append(("arrived", {camera: frame.message.header.frame_id}))
            return put(self, camera, frame)

    def logged_take(self) -> dict[str, Any]:
        batch = take(self)
        events.append(("taken", {camera: frame.message.header.frame_id for camera, frame in batch.items()}))
        return batch

    monkeypatch.setattr(Worker, "put", logged_put)
    monkeypatch.setattr(Worker, "_take", logged_take)
    return events


def test_slow_network_takes_the_newest_of_each_camera_and_none_twice_before_another(bench, log):
    """Two cameras at 30 Hz into a network of some 8 Hz; the number of a picture is its frame."""
    bench = bench(cameras=["front", "left"], grid__enabled=False)
    bench.segmenter.takes_s = 0.12
    pause = threading.Event()
    for number in range(SENT):
        for camera in ("front", "left"):
            bench.send(picture(), camera=camera, header=bench.header(frame=str(number)))
        pause.wait(PERIOD_S)
    bench.wait(
        lambda: log and all(masks and bench.node._pipeline._worker.is_idle() for masks in bench.masks_of.values()), ""
    )

    waiting: dict[str, str] = {}
    taken: list[tuple[str, int]] = []
    for kind, pictures in log:
        if kind == "arrived":
            waiting |= pictures
        else:
            assert pictures == waiting  # the newest of every camera that has one, and nothing else
            waiting = {}
            taken += [(camera, int(number)) for camera, number in pictures.items()]
    assert waiting == {}
    for camera, masks in bench.masks_of.items():
        numbers = [number for name, number in taken if name == camera]
        assert 3 < len(numbers) < SENT - 5, "the network was not slow, or nothing came"
        assert numbers == sorted(set(numbers))
        bench.wait(lambda masks=masks, numbers=numbers: int(masks[-1].header.frame_id) == numbers[-1], "the last mask")
        arrived = sum(camera in pictures for kind, pictures in log if kind == "arrived")
        left_out = str(arrived - len(numbers))
        bench.wait(
            lambda camera=camera, left_out=left_out: bench.values(camera)["replaced"] == left_out,
            "the pictures that were left out are not counted",
        )


def test_dead_camera_holds_nobody_up(bench):
    bench = bench(cameras=["front", "left"], grid__enabled=False)

    for _ in range(5):
        bench.segment(picture())

    assert bench.segmenter.batches == [1] * 5
    assert bench.set_parameters(diagnostics__stale_after=0.3)[0].successful
    bench.wait_for_status(levels()[2], "silent: no picture", name="left")
    assert bench.masks_of["left"] == []


def wait_for_pair(bench, seed: int) -> None:
    """Hold the network with one picture, let one of each camera wait, let go; both are then one batch."""
    bench.segmenter.gate.clear()
    bench.segmenter.entered.clear()
    before = {camera: int(bench.values(camera).get("frames_in", 0)) for camera in ("front", "left")}
    bench.send(picture(seed=90))
    assert bench.segmenter.entered.wait(20)
    for camera in ("front", "left"):
        bench.send(picture(seed=seed), camera=camera)
    bench.wait(
        lambda: (
            int(bench.values("front")["frames_in"]) >= before["front"] + 2
            and int(bench.values("left")["frames_in"]) >= before["left"] + 1
        ),
        "both pictures",
    )
    bench.segmenter.gate.set()


def test_pictures_that_wait_are_one_batch_with_the_answer_of_each(bench):
    bench = bench(cameras=["front", "left"], grid__enabled=False)
    bench.wait(lambda: bench.values("left"), "no report")

    wait_for_pair(bench, seed=1)
    bench.wait(lambda: len(bench.masks_of["front"]) == 2 and bench.masks_of["left"], "no masks")

    assert bench.segmenter.batches == [1, 2]
    rgb = picture(seed=1)
    expected = np.where(rgb[..., 1] >= 200, 255, rgb[..., 0] % 19)
    for camera in ("front", "left"):
        mask = bench.masks_of[camera][-1]
        assert mask.header.frame_id == f"{camera}_optical"
        np.testing.assert_array_equal(np.array(mask.data).reshape(48, 64), expected)


def test_after_out_of_memory_the_next_batch_is_smaller(bench):
    bench = bench(cameras=["front", "left"], grid__enabled=False)
    bench.wait(lambda: bench.values("left"), "no report")
    bench.segmenter.memory_for = 1

    wait_for_pair(bench, seed=1)
    bench.wait(lambda: len(bench.masks_of["front"]) == 2 and bench.masks_of["left"], "no masks")
    for camera in ("front", "left"):
        assert set(bench.masks_of[camera][-1].data) == {255}
        bench.wait_for_status(levels()[2], "inference: OutOfMemoryError: CUDA out of memory.", name=camera)
    wait_for_pair(bench, seed=2)
    bench.wait(lambda: len(bench.masks_of["front"]) == 4 and len(bench.masks_of["left"]) == 2, "no masks")

    assert bench.segmenter.batches == [1, 2, 1, 1, 1]
    for camera in ("front", "left"):
        assert len(set(bench.masks_of[camera][-1].data)) > 2
        bench.wait_for_status(levels()[0], "running", name=camera)
        assert bench.values(camera)["batch_limit"] == "1"
        assert bench.values(camera)["dropped_bad"] == "0"


def test_picture_that_the_network_cannot_do_blinds_no_other_camera(bench):
    bench = bench(cameras=["front", "left"], grid__enabled=False)
    bench.wait(lambda: bench.values("left"), "no report")
    bench.segmenter.gate.clear()
    bench.send(picture(seed=90))
    assert bench.segmenter.entered.wait(20)
    bad = picture(seed=1)
    bad[0, 0, 0] = bench.segmenter.poison = 77
    bench.send(bad)
    bench.send(picture(seed=2), camera="left")
    bench.wait(
        lambda: (bench.values("front")["frames_in"], bench.values("left")["frames_in"]) == ("2", "1"), "both pictures"
    )
    bench.segmenter.gate.set()

    bench.wait(lambda: len(bench.masks_of["front"]) == 2 and bench.masks_of["left"], "no masks")

    assert set(bench.masks_of["front"][-1].data) == {255}
    assert len(set(bench.masks_of["left"][-1].data)) > 2
    bench.wait_for_status(levels()[2], "inference: stand-in: scores are not numbers", name="front")
    assert bench.status("left").level == levels()[0]
    assert bench.values("front")["trouble_in"] == "device"


def test_every_camera_has_its_own_transport_region_and_output_size(bench):
    import cv2

    bench = bench(
        cameras=["front", "left"],
        grid__enabled=False,
        front__transport="compressed",
        left__roi=[0, 0, 96, 64],
        left__output_size=[64, 128],
    )
    rgb = picture(96, 96)

    header = bench.send_compressed(cv2.imencode(".png", rgb[..., ::-1])[1].tobytes(), "png")
    bench.wait(lambda: bench.masks, "no mask")
    left = bench.segment(rgb, camera="left")

    assert bench.masks[-1].header == header
    assert (bench.masks[-1].height, bench.masks[-1].width) == (96, 96)
    assert (left.height, left.width, left.step) == (64, 128, 128)
    found = np.array(left.data, np.uint8).reshape(64, 128)
    full = np.where(rgb[..., 1] >= 200, 255, rgb[..., 0] % 19)
    full[64:] = 255
    # pixel centres: row r of 64 lies at 1.5 r + 0.25 of 96, column c of 128 at 0.75 c - 0.125
    rows = np.floor((np.arange(64) + 0.5) * 96 / 64).astype(int)
    columns = np.floor((np.arange(128) + 0.5) * 96 / 128).astype(int)
    np.testing.assert_array_equal(found, full[rows][:, columns])
