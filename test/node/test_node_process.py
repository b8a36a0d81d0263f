"""The node as users start it: a process of its own, the network of `small`, real topics, real signals."""

from __future__ import annotations

import array
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

import mfuser_ros

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL_WEIGHTS = REPOSITORY / "models" / "small.safetensors"
PICTURE = REPOSITORY / "test" / "data" / "pictures" / "highway_300.jpg"
EXIT_S = 20.0  # spec: SIGINT or SIGTERM in any state ends the process within this time


class NodeProcess:
    """`python -m mfuser_ros.node` with its output read line by line."""

    def __init__(self, *arguments: str, program: Sequence[str] = ("-m", "mfuser_ros.node")) -> None:
        command = [sys.executable, *program, "--ros-args", *arguments]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "OMP_NUM_THREADS": "1",
            "RCUTILS_LOGGING_BUFFERED_STREAM": "0",
        }
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()

    def wait_for_line(self, text: str, deadline_s: float = 60.0) -> str:
        """The first line that holds `text`."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: next((line for line in self.lines if text in line), None), deadline_s
            )
        assert found, f"no line with {text!r}: {self.lines}"
        return str(found)

    def end(self, number: int) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(EXIT_S)
        self._reader.join(EXIT_S)
        return code


@pytest.fixture
def start() -> Iterator:
    processes: list[NodeProcess] = []

    def start_node(*arguments: str, **options: Sequence[str]) -> NodeProcess:
        processes.append(NodeProcess(*arguments, **options))
        return processes[-1]

    yield start_node
    for node in processes:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()


@pytest.fixture(scope="module")
def small_file(tmp_path_factory) -> Path:
    """The architecture `small` with random weights, as a model file."""
    import torch

    from mfuser_ros import vocabulary
    from mfuser_ros.checkpoints import ModelCard, save_model
    from mfuser_ros.checkpoints.store import build
    from mfuser_ros.network.config import SMALL

    torch.manual_seed(0)
    names = vocabulary.load().names
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    card = ModelCard(
        name="random",
        architecture=SMALL,
        vocabulary=names,
        threshold=0.06,
        temperature=1.0,
        licence="none",
        provenance="random weights of this test",
    )
    network = build(SMALL, names)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "mask_embed" in name or "mask_feature" in name:
                weight.mul_(4)  # untrained masks are flat: this gives several classes and confidences
    save_model(network, card, path)
    return path


def test_process_segments_real_messages(graph, start, small_file):
    from nav_msgs.msg import OccupancyGrid
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import String

    noise = np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8)
    picture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 7), None, 0, 255, cv2.NORM_MINMAX)
    segmenter = mfuser_ros.load(small_file, device="cpu", input_size=(64, 96), threshold=0)
    half = float(np.median(segmenter(picture).confidence)) + 0.5  # between two values of a confidence
    segmenter.threshold = half / 255
    expected = segmenter(picture)
    node = start(
        *("-r", "__ns:=/perception"),
        *("-p", f"threshold:={segmenter.threshold}"),
        *("-p", f"model:={small_file}"),
        *("-p", "device:=cpu"),
        *("-p", "input_size:=[64, 96]"),
        *("-p", "max_age:=0"),
        *("-p", "front.pose:=[0.0, 0.0, 1.5, -1.5708, 0.0, -1.5708]"),
    )
    masks = graph.collect(Image, "/perception/mfuser/front/mask")
    confidences = graph.collect(Image, "/perception/mfuser/front/confidence")
    infos = graph.collect(CameraInfo, "/perception/mfuser/front/camera_info")
    images = graph.publisher(Image, "/perception/front/image_raw")
    calibrations = graph.publisher(CameraInfo, "/perception/front/camera_info")
    graph.wait(images.get_subscription_count, "the node does not subscribe", 60)
    graph.wait_for_match(calibrations)
    graph.wait_for_publisher("/perception/mfuser/front/confidence")

    info = CameraInfo(height=90, width=160, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [120.0, 0.0, 79.5, 0.0, 120.0, 44.5, 0.0, 0.0, 1.0]
    info.header.frame_id = "front_optical"
    sent = {}

    def publish() -> None:
        message = Image(height=90, width=160, step=480, encoding="rgb8", data=array.array("B", picture.tobytes()))
        message.header.stamp = graph.node.get_clock().now().to_msg()
        message.header.frame_id = "front_optical"
        sent[message.header.stamp.sec, message.header.stamp.nanosec] = message.header
        calibrations.publish(info)  # with every picture, as drivers do: best effort may lose one
        images.publish(message)

    # the node encodes confidence for those who listen, and what it knows of them comes a moment after they know of it
    graph.repeat(publish, lambda: masks and confidences and infos, f"no mask: {node.lines}", 60)

    mask, confidence = masks[-1], confidences[-1]
    for output in (mask, confidence, infos[-1]):
        assert output.header == sent[output.header.stamp.sec, output.header.stamp.nanosec]
    for output in (mask, confidence):
        assert (output.height, output.width, output.step, output.encoding) == (90, 160, 160, "mono8")
        assert len(output.data) == 90 * 160
    assert list(infos[-1].k) == list(info.k)
    ids, probability = (np.array(output.data).reshape(90, 160) for output in (mask, confidence))
    assert 0.1 < (ids == 255).mean() < 0.9
    # the same network in this process; another number of threads may round the last bit otherwise
    assert (ids == expected.mask).mean() > 0.99
    assert (probability[ids == 255] == 0).all()
    known = (ids != 255) & (expected.mask != 255)
    np.testing.assert_allclose(probability[known], expected.confidence[known], atol=1)

    latched = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    late_maps = graph.collect(String, "/perception/mfuser/class_map", latched)
    late_grids = graph.collect(OccupancyGrid, "/perception/mfuser/drivable_area/grid", latched)
    graph.wait(lambda: late_maps and late_grids, "a late subscriber gets nothing")
    meaning = json.loads(late_maps[0].data)
    assert meaning["classes"][0] == {"id": 0, "name": "road", "color": [128, 64, 128], "drivable": True}
    assert [entry["id"] for entry in meaning["classes"]] == list(range(19))
    assert meaning["unknown"] == 255
    grid = late_grids[0]
    assert (grid.info.width, grid.info.height, grid.header.frame_id) == (225, 150, "base_link")
    assert set(grid.data) <= {-1, 0, 100}

    assert node.end(signal.SIGINT) == 0, node.lines


@pytest.mark.skipif(not SMALL_WEIGHTS.exists(), reason=f"{SMALL_WEIGHTS.relative_to(REPOSITORY)} is missing")
@pytest.mark.skipif(not PICTURE.exists(), reason=f"{PICTURE.relative_to(REPOSITORY)} is missing")
def test_shipped_model_segments_a_real_picture(graph, start):
    from sensor_msgs.msg import CompressedImage, Image

    node = start("-p", "device:=cpu", "-p", "front.transport:=compressed", "-p", "max_age:=0")
    masks = graph.collect(Image, "/mfuser/front/mask")
    images = graph.publisher(CompressedImage, "/front/image_raw/compressed")
    graph.wait(images.get_subscription_count, "the node does not subscribe", 60)
    message = CompressedImage(format="jpeg", data=array.array("B", PICTURE.read_bytes()))
    message.header.frame_id = "front_optical"

    def publish() -> None:
        message.header.stamp = graph.node.get_clock().now().to_msg()
        images.publish(message)

    graph.repeat(publish, lambda: masks, f"no mask: {node.lines}", 60)

    mask = np.array(masks[0].data, np.uint8).reshape(masks[0].height, masks[0].width)
    assert mask.shape == (720, 1280)
    for name, class_id, rows, columns in (
        ("sky", 10, slice(50, 200), slice(300, 900)),
        ("road", 0, slice(500, 640), slice(550, 850)),
        ("car", 13, slice(440, 510), slice(990, 1120)),
    ):
        assert (mask[rows, columns] == class_id).mean() > 0.8, name
    picture = cv2.cvtColor(cv2.imread(str(PICTURE)), cv2.COLOR_BGR2RGB)
    expected = mfuser_ros.load("small", device="cpu")(picture).mask
    assert (mask == expected).mean() > 0.99  # another number of threads may round the last bit otherwise
    assert node.end(signal.SIGTERM) == 0, node.lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signal_while_the_model_loads_ends_with_exit_code_0(graph, start, small_file, number):
    node = start("-p", f"model:={small_file}", "-p", "device:=cpu")
    node.wait_for_line("loading model")

    assert node.end(number) == 0, node.lines
    assert not any("Traceback" in line for line in node.lines), node.lines


def test_two_signals_end_with_exit_code_0(graph, start):
    node = start("-p", "autostart:=false")
    graph.wait_for_publisher("/diagnostics")
    node.process.send_signal(signal.SIGINT)

    assert node.end(signal.SIGINT) == 0, node.lines
    assert not any("Traceback" in line for line in node.lines), node.lines


STATES = """
import sys, threading
from functools import partial
from mfuser_ros import vocabulary
from mfuser_ros.node import __main__, node

class Light:
    name, sha256, device, precision = "light", "", "cpu", "float32"
    threshold = default_threshold = 0.0
    timing = None
    state = "eager"
    vocabulary = vocabulary.load()
    def warm_up(self, height, width):
        pass

node.MFuserNode = partial(node.MFuserNode, load=lambda settings: Light())
code = __main__.main()
print("threads left:", [thread.name for thread in threading.enumerate()], flush=True)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("state", "number"),
    [
        ("unconfigured", signal.SIGINT),
        ("inactive", signal.SIGINT),
        ("active", signal.SIGINT),
        ("active", signal.SIGTERM),
        ("finalized", signal.SIGINT),
    ],
)
def test_signal_in_every_lifecycle_state_ends_with_exit_code_0_and_no_thread(graph, start, state, number):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    steps = {
        "unconfigured": [],
        "inactive": [Transition.TRANSITION_CONFIGURE],
        "active": [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE],
        "finalized": [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_INACTIVE_SHUTDOWN],
    }
    name = f"mfuser_{state}_{number}"
    node = start("-p", "autostart:=false", "-r", f"__node:={name}", program=("-c", STATES))
    client = graph.node.create_client(ChangeState, f"/{name}/change_state")
    graph.wait(client.service_is_ready, f"the node offers no service: {node.lines}", 60)
    for step in steps[state]:
        future = client.call_async(ChangeState.Request(transition=Transition(id=step)))
        graph.wait(future.done, f"no answer: {node.lines}", 60)
        assert future.result().success

    assert node.end(number) == 0, node.lines
    assert "threads left: ['MainThread']" in node.lines
    assert not any("Traceback" in line for line in node.lines), node.lines


HANGING = """
import sys
from functools import partial
from threading import Event

from mfuser_ros.node import __main__, node
from stand_in import StandIn

class Hanging(StandIn):
    def __call__(self, picture):
        print("hanging", flush=True)
        Event().wait()

node.MFuserNode = partial(node.MFuserNode, load=lambda settings: Hanging())
__main__.STOP_TIMEOUT_S = 0.5
sys.exit(__main__.main())
"""


def test_signal_while_the_network_hangs_ends_with_exit_code_0(graph, start, monkeypatch):
    from sensor_msgs.msg import Image

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    node = start(program=("-c", HANGING))
    images = graph.publisher(Image, "/front/image_raw")
    graph.wait(images.get_subscription_count, "the node does not subscribe", 60)
    message = Image(height=2, width=2, step=6, encoding="rgb8", data=array.array("B", bytes(12)))
    graph.repeat(lambda: images.publish(message), lambda: "hanging" in node.lines, "no picture in work", 20)

    assert node.end(signal.SIGTERM) == 0, node.lines


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--params-file", "/nowhere.yaml"), "Couldn't parse params file: '--params-file /nowhere.yaml'"),
        (("-p", "max_rate"), "Couldn't parse parameter override rule: '-p max_rate'"),
        (("--what",), "UnknownROSArgsError: ['--what']"),
    ],
)
def test_argument_that_cannot_be_used_is_one_line_and_exit_code_2(graph, start, arguments, text):
    node = start(*arguments)

    assert node.process.wait(EXIT_S) == 2, node.lines
    node.wait_for_line("segment: ")
    (line,) = (line for line in node.lines if not line.startswith("["))  # those are rcl's
    assert text in line


def test_waiting_threads_are_told_to_sleep_before_torch_reads_it():
    code = (
        "import os, sys; import mfuser_ros.node.__main__ as node; "
        "node._run = lambda *_: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules) or 0; node.main([])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}

    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=REPOSITORY
    )

    assert told.stdout == "PASSIVE False\n"


def test_help_explains_and_starts_nothing(capsys):
    from mfuser_ros.node.__main__ import main

    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: segment [--ros-args ROS_ARGUMENT...]")


def test_setting_that_cannot_work_is_one_line_and_the_process_lives(graph, start):
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

    reports = graph.collect(DiagnosticArray, "/diagnostics")
    text = "/nowhere/small.safetensors: no such file"
    node = start("-p", "model:=/nowhere/small.safetensors")

    line = node.wait_for_line("configure failed")

    assert text in line
    graph.wait(lambda: reports and reports[-1].status[0].level == DiagnosticStatus.ERROR, "no ERROR in diagnostics")
    status = reports[-1].status[0]
    assert status.name == "mfuser: front"
    assert text in status.message
    assert node.process.poll() is None
    assert sum("configure failed" in line for line in node.lines) == 1
    assert not any("Traceback" in line for line in node.lines), node.lines
    assert node.end(signal.SIGTERM) == 0, node.lines
