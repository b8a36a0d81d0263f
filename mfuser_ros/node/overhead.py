"""What the node costs beside the network: `python -m mfuser_ros.node.overhead '{"width": 1280, ...}'`.

Cameras in a process of their own send pictures over DDS to a node whose network answers at once, or after a while, and
hear the masks and the node's own times. Rows: `node_overhead` where it answers at once: `ms` is the time from the begin
of work on a picture to its mask; `node_age` otherwise: `latency_ms` is the age of a result. With `model` a real network
answers, on a GPU where there is one (`node`): ages, drops, the share of GPU and CPU, and what is spent outside of it.
The last line of the output is a JSON list of rows, as `mfuser bench --json` writes them.
"""

from __future__ import annotations

import array
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from mfuser_ros import share, vocabulary
from mfuser_ros.errors import NodeError
from mfuser_ros.evaluation.speed import cpu_name, peak_rss_mb, percentiles

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmentation, Segmenter  # torch is loaded when the node is configured

Row = dict[str, Any]  # one measurement, as it goes to JSON

WARM_UP = 15  # pictures that are not counted
DEADLINE_S = 60.0
STAGES = tuple(f"processing_time/{stage}" for stage in ("preprocess", "inference", "postprocess"))
TIMES = ("processing_time", "pipeline_latency", *STAGES)


class Task(BaseModel):
    """What is measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: PositiveInt  # of the picture, pixels
    height: PositiveInt
    frames: PositiveInt  # of each camera
    rate_hz: PositiveFloat = 30.0
    cameras: PositiveInt = 1
    network_ms: NonNegativeFloat = 0.0  # for which the network does nothing before it answers
    model: str = ""  # a real one instead: a name in models/, a path, or a preset (random weights)
    device: str = "auto"
    warm_up_s: NonNegativeFloat = 0.0  # that is not counted, beyond the first pictures: a GPU compiles and records


class Idle:
    """A Segmenter that gives the same mask for every picture, after a while."""

    name, sha256, device, precision = "none", "", "cpu", "float32"
    default_threshold = 0.0

    def __init__(self, task: Task) -> None:
        from mfuser_ros.inference import Segmentation  # noqa: PLC0415  torch takes seconds

        self._segmentation = Segmentation
        self.vocabulary = vocabulary.load()
        self.threshold = 0.0
        self.timing = None
        self.state = "eager"
        self._seconds, self._pause = task.network_ms / 1000, threading.Event()
        bands = np.arange(task.height)[:, None] // 32 % len(self.vocabulary.classes)
        self._mask = np.repeat(bands.astype(np.uint8), task.width, axis=1)
        self._confidence = np.full_like(self._mask, 255)

    def warm_up(self, height: int, width: int) -> None:
        """Nothing needs it."""

    def __call__(self, picture: np.ndarray | list[np.ndarray]) -> Segmentation | list[Segmentation]:
        """The mask, for one picture or each of several."""
        if self._seconds:
            self._pause.wait(self._seconds)
        if isinstance(picture, list):
            return [self._answer(one) for one in picture]
        return self._answer(picture)

    def _answer(self, picture: np.ndarray) -> Segmentation:
        return self._segmentation(picture, self._mask, self._confidence, self._mask, self.vocabulary)


def measure(task: Task) -> list[Row]:
    """Run node and camera.

    Raises:
        NodeError: no masks come.
    """
    os.environ |= {
        "ROS_DOMAIN_ID": str(os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": tempfile.gettempdir(),
        "FASTDDS_DEFAULT_PROFILES_FILE": str(share.find("config/fastdds_shm.xml")),
    }
    ours, theirs = multiprocessing.Pipe()
    camera = multiprocessing.get_context("spawn").Process(target=_camera, args=(task, theirs), daemon=True)
    camera.start()
    theirs.close()
    try:
        return [_node(task, ours, _network(task) if task.model else Idle(task))]
    finally:
        camera.join(DEADLINE_S)


def _network(task: Task) -> Segmenter:
    from mfuser_ros.evaluation import gpu_speed  # noqa: PLC0415  torch takes seconds
    from mfuser_ros.inference.loading import choose_device, choose_precision, load  # noqa: PLC0415

    if not gpu_speed.is_without_weights(task.model):
        return load(task.model, device=task.device)
    device = choose_device(task.device)
    return gpu_speed.random_segmenter(task.model, device, choose_precision("auto", device))


def _node(task: Task, camera: Connection, segmenter: Idle | Segmenter) -> Row:
    """The node in this process until the camera has sent all."""
    import rclpy  # noqa: PLC0415  reads the environment
    from rclpy.executors import SingleThreadedExecutor  # noqa: PLC0415
    from rclpy.parameter import Parameter  # noqa: PLC0415

    from mfuser_ros.node.node import MFuserNode  # noqa: PLC0415

    rclpy.init()
    node = MFuserNode(
        load=lambda _: segmenter,  # type: ignore[arg-type, return-value]  # may stand in for it
        parameter_overrides=[
            Parameter("grid.enabled", value=False),
            Parameter("max_age", value=0.0),
            Parameter("cameras", value=_names(task)),
        ],
    )
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = time.monotonic() + DEADLINE_S + task.warm_up_s + task.frames / task.rate_hz
    used_s = wall_s = 0.0
    gpu: list[float] = []
    try:
        while not camera.poll():
            executor.spin_once(timeout_sec=0.1)
            if time.monotonic() > end:
                raise NodeError("the camera of the measurement does not answer: is another node on this ROS domain?")
        told = camera.recv()
        if isinstance(told, str):
            used_s, wall_s = -_cpu_s(), -time.monotonic()
            with _gpu_share(segmenter.device, gpu):
                while not camera.poll():
                    executor.spin_once(timeout_sec=0.1)
                    if time.monotonic() > end:
                        raise NodeError(f"{told}, and nothing more: the node answers too slowly")
            told, used_s, wall_s = camera.recv(), used_s + _cpu_s(), wall_s + time.monotonic()
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    count = len(told["processing_time"])
    if not count:
        raise NodeError("no mask came back: is another node on this ROS domain?")
    row = {
        "what": "node" if task.model else "node_age" if task.network_ms else "node_overhead",
        "device": "cpu",
        "device_name": cpu_name(),
        "threads": 1,
        "size": f"{task.width}x{task.height}",
        "batch": task.cameras,
        "cameras": task.cameras,
        "network_ms": task.network_ms,
        "rate_hz": task.rate_hz,
        "frames": count,
        "sent": told["sent"],
        "ms": percentiles(told["processing_time"]),
        "latency_ms": percentiles(told["pipeline_latency"]),
        "cpu_ms": round(used_s * 1e3 / count, 3),
        "peak_rss_mb": peak_rss_mb(),
    }
    return row | _of_a_real_network(segmenter, told, used_s / wall_s, gpu) if task.model else row


def _of_a_real_network(segmenter: Any, told: Row, cpu_share: float, gpu: list[float]) -> Row:
    network = [sum(stages) for stages in zip(*(told[stage] for stage in STAGES), strict=False)]
    outside = [all_of_it - inside for all_of_it, inside in zip(told["processing_time"], network, strict=False)]
    row: Row = {
        "model": segmenter.name,
        "precision": segmenter.precision,
        "backend": segmenter.state,
        "inside_ms": percentiles(network),
        "outside_ms": percentiles(outside),
        "dropped": told["sent"] - len(told["processing_time"]),
        "cpu_share": round(cpu_share, 3),  # of one core
    }
    if segmenter.device != "cpu":
        import torch  # noqa: PLC0415

        row |= {"device": segmenter.device, "device_name": torch.cuda.get_device_name(segmenter.device)}
        row["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated(segmenter.device) / 1e6, 1)
    if gpu:
        row["gpu_share"] = round(sum(gpu) / len(gpu) / 100, 3)
    return row


@contextmanager
def _gpu_share(device: str, shares: list[float]) -> Iterator[None]:
    """Inside, nvidia-smi looks five times a second; then `shares` holds per cent of time with a kernel at work."""
    program = shutil.which("nvidia-smi") if device.startswith("cuda") else None
    if program is None:
        yield
        return
    index = device.partition(":")[2] or "0"
    command = [program, "-i", index, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait()
            output.seek(0)
            shares += [float(line) for line in output.read().split() if line.replace(".", "").isdigit()]


def _camera(task: Task, node: Connection) -> None:
    """Sends pictures, tells when it begins to count, and what it heard."""
    import rclpy  # noqa: PLC0415
    from rclpy.executors import ExternalShutdownException  # noqa: PLC0415
    from sensor_msgs.msg import Image  # noqa: PLC0415
    from std_msgs.msg import Float64  # noqa: PLC0415

    rclpy.init()
    camera = rclpy.create_node("camera")
    masks: list[Any] = []
    times: dict[str, list[float]] = {name: [] for name in TIMES}
    for name in TIMES:
        topic = f"/mfuser/debug/{name}_ms"
        camera.create_subscription(Float64, topic, lambda message, to=times[name]: to.append(message.data), 10)
    for name in _names(task):
        camera.create_subscription(Image, f"/mfuser/{name}/mask", masks.append, 10)
    publishers = [camera.create_publisher(Image, f"/{name}/image_raw", 1) for name in _names(task)]

    def spin() -> None:
        with suppress(ExternalShutdownException):
            rclpy.spin(camera)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    message = Image(height=task.height, width=task.width, step=3 * task.width, encoding="rgb8")
    rows = np.random.default_rng(0).integers(0, 256, (task.height, 3 * task.width), np.uint8)
    message.data = array.array("B", rows.tobytes())
    pause, end = threading.Event(), time.monotonic() + DEADLINE_S
    while not all(publisher.get_subscription_count() for publisher in publishers) and time.monotonic() < end:
        pause.wait(0.02)
    sent, due = 0, time.monotonic()
    warm_up = WARM_UP + round(task.warm_up_s * task.rate_hz)
    for number in range(warm_up + task.frames):
        if number == warm_up:
            sent = 0
            for heard in times.values():
                heard.clear()
            node.send("begun")
        for publisher in publishers:
            message.header.stamp = camera.get_clock().now().to_msg()
            publisher.publish(message)
            sent += 1
        due += 1 / task.rate_hz
        pause.wait(max(0.0, due - time.monotonic()))
        masks.clear()
    node.send({"sent": sent, **times})
    rclpy.try_shutdown()
    thread.join(DEADLINE_S)


def _names(task: Task) -> list[str]:
    return [f"camera{number}" for number in range(task.cameras)]


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(arguments: list[str]) -> int:
    """Measure the task in the first argument and print its rows; 2, with one line on stderr, for a bad one."""
    try:
        rows = measure(Task.model_validate_json(arguments[0]))
    except (NodeError, ValidationError, ImportError) as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return 2
    sys.stdout.write(json.dumps(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
