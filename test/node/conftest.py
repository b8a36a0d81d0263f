"""The node beside the test in one process: real topics, a network whose answers can be worked out."""

from __future__ import annotations

import array
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FORWARD = [0.0, 0.0, 1.5, -1.5707963, 0.0, -1.5707963]
"""Pose of a level forward camera 1.5 m above the ground."""


PATIENT = {
    "max_age": 0.0,
    "diagnostics.stale_after": 60.0,
    "diagnostics.warn_latency": 60.0,
    "diagnostics.error_latency": 60.0,
    "diagnostics.camera_trouble_after": 60.0,
    "diagnostics.max_allowed_processing_time_ms": 60_000.0,
}
"""Parameters under which no fault comes of a machine that is busy with other tests."""


class Bench:
    """A graph with the node in it, and what the node publishes."""

    def __init__(self, graph: Any, parameters: dict[str, Any], options: dict[str, Any]) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from nav_msgs.msg import OccupancyGrid
        from rcl_interfaces.msg import Log
        from rclpy.parameter import Parameter
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image
        from stand_in import StandIn

        from mfuser_ros.node.node import MFuserNode

        self.graph = graph
        self.reports = graph.collect(DiagnosticArray, "/diagnostics")
        self.log = graph.collect(Log, "/rosout", 100)
        names = parameters.get("cameras", ["front"])
        self.masks_of = {name: graph.collect(Image, f"/mfuser/{name}/mask") for name in names}
        self.masks = self.masks_of.get("front", [])
        self.confidences = graph.collect(Image, "/mfuser/front/confidence")
        self.infos = graph.collect(CameraInfo, "/mfuser/front/camera_info")
        self.grids = graph.collect(OccupancyGrid, "/mfuser/drivable_area/grid")
        self.segmenter = StandIn()
        self.node = MFuserNode(
            load=options.pop("load", lambda settings: self.segmenter),
            context=graph.context,
            parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()],
            **options,
        )
        graph.spin(self.node)
        self.image_publishers, self.info_publishers = {}, {}
        for name in names:
            compressed = parameters.get(f"{name}.transport") == "compressed"
            given = parameters.get(f"{name}.image_topic", "").removeprefix("/")
            base = f"/{given}" if given and " " not in given else f"/{name}/image_raw"
            self.image_publishers[name] = graph.publisher(
                CompressedImage if compressed else Image, base + ("/compressed" if compressed else "")
            )
            self.info_publishers[name] = graph.publisher(CameraInfo, f"{base.rpartition('/')[0]}/camera_info")
        self._clients: dict[str, Any] = {}
        self._stamp_ns = 0

    def wait_until_active(self) -> None:
        """Wait until the node listens, and is connected with all that the test listens to."""
        for publisher in (*self.image_publishers.values(), *self.info_publishers.values()):
            self.graph.wait_for_match(publisher)
        heard = [f"/mfuser/front/{name}" for name in ("confidence", "camera_info") if "front" in self.masks_of]
        for topic in ("/diagnostics", *(f"/mfuser/{name}/mask" for name in self.masks_of), *heard):
            self.wait_until_connected(topic)
        self.wait_until_connected("/mfuser/drivable_area/grid")

    def wait_until_connected(self, topic: str) -> None:
        """Wait until the node's publisher of a topic knows of the test's subscription."""
        self.graph.wait(
            lambda: any(p.topic_name == topic and p.get_subscription_count() for p in list(self.node.publishers)),
            f"nobody is connected to {topic}",
        )

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """As Graph.wait, with the last report in the message."""
        return self.graph.wait(condition, f"{what}; last report: {self.status() and self.status().message}")

    def now_ns(self) -> int:
        """The clock, never the same twice."""
        self._stamp_ns = max(self._stamp_ns + 1, self.graph.node.get_clock().now().nanoseconds)
        return self._stamp_ns

    def header(self, *, stamp_ns: int | None = None, frame: str = "front_optical") -> Any:
        from std_msgs.msg import Header

        header = Header(frame_id=frame)
        header.stamp.sec, header.stamp.nanosec = divmod(self.now_ns() if stamp_ns is None else stamp_ns, 10**9)
        return header

    def send(self, pixels: np.ndarray, *, camera: str = "front", **changes: Any) -> Any:
        """Publish an RGB picture (height, width, 3); `changes` set fields of the Image. Returns its header."""
        from sensor_msgs.msg import Image

        message = Image(height=pixels.shape[0], width=pixels.shape[1], step=pixels.shape[1] * 3, encoding="rgb8")
        message.header = changes.pop("header", None) or self.header(frame=f"{camera}_optical")
        message.data = array.array("B", changes.pop("data", pixels.tobytes()))
        for name, value in changes.items():
            setattr(message, name, value)
        self.image_publishers[camera].publish(message)
        return message.header

    def send_compressed(self, data: bytes, text: str = "jpeg") -> Any:
        """Publish a CompressedImage. Returns its header."""
        from sensor_msgs.msg import CompressedImage

        message = CompressedImage(header=self.header(), format=text, data=array.array("B", data))
        self.image_publishers["front"].publish(message)
        return message.header

    def send_info(self, height: int = 48, width: int = 64, *, camera: str = "front", **changes: Any) -> None:
        """Publish the CameraInfo of a camera that sees 56 degrees."""
        from sensor_msgs.msg import CameraInfo

        info = CameraInfo(
            header=self.header(frame=f"{camera}_optical"),
            height=height,
            width=width,
            distortion_model="plumb_bob",
            d=[0.0] * 5,
        )
        info.k = [width * 0.9375, 0.0, width / 2 - 0.5, 0.0, width * 0.9375, height / 2 - 0.5, 0.0, 0.0, 1.0]
        for name, value in changes.items():
            setattr(info, name, value)
        self.info_publishers[camera].publish(info)

    def segment(self, pixels: np.ndarray, *, camera: str = "front", **changes: Any) -> Any:
        """Publish a picture and return its mask."""
        masks = self.masks_of[camera]
        before = len(masks)
        header = self.send(pixels, camera=camera, **changes)
        self.wait(lambda: len(masks) > before, "no mask")
        assert masks[-1].header == header
        return masks[-1]

    def segment_with_grid(self, pixels: np.ndarray, **changes: Any) -> Any:
        """Publish CameraInfo and pictures until one has a grid; returns that grid."""
        before = len(self.grids)
        self.send_info(*pixels.shape[:2])

        def try_again() -> None:
            self.segment(pixels, **changes)

        # CameraInfo and picture come on different topics, in any order
        self.graph.repeat(try_again, lambda: len(self.grids) > before, "no grid", 20)
        self.wait(lambda: self.grids[-1].header.stamp == self.masks[-1].header.stamp, "grid and mask of one picture")
        return self.grids[-1]

    def status(self, name: str = "front") -> Any:
        """The last status of a camera, or of the processing time; None before the first."""
        found = [entry for entry in self.reports[-1].status if entry.name == f"mfuser: {name}"] if self.reports else []
        return found[0] if found else None

    def wait_for_status(
        self, level: bytes, text: str = "", *, after: int | None = None, name: str | None = None
    ) -> Any:
        """The first status with this level and text in its message: from now on, or after so many reports.

        Of any camera or the processing time, or of the one with this name.
        """
        seen = len(self.reports) if after is None else after

        def find() -> Any:
            for report in self.reports[seen:]:
                for status in report.status:
                    of_name = name is None or status.name == f"mfuser: {name}"
                    if of_name and status.level == level and text in status.message:
                        return status
            return None

        return self.wait(find, f"no status of level {level!r} with {text!r}")

    def values(self, name: str = "front") -> dict[str, str]:
        """Keys and values of the last status; none before the first."""
        status = self.status(name)
        return {} if status is None else {entry.key: entry.value for entry in status.values}

    def lines(self, text: str) -> list[str]:
        """What the node has logged that holds `text`."""
        return [entry.msg for entry in list(self.log) if entry.name == "mfuser" and text in entry.msg]

    def set_parameters(self, **values: Any) -> list[Any]:
        """Set parameters as `ros2 param set` does, by service; `__` stands for a dot. Returns the results."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        parameters = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
        request = SetParameters.Request(parameters=[parameter.to_parameter_msg() for parameter in parameters])
        return list(self._call(SetParameters, "/mfuser/set_parameters", request).results)

    def transition(self, label: str) -> bool:
        """Change the lifecycle state by service; returns whether that succeeded."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        ids = {
            "configure": Transition.TRANSITION_CONFIGURE,
            "activate": Transition.TRANSITION_ACTIVATE,
            "deactivate": Transition.TRANSITION_DEACTIVATE,
            "cleanup": Transition.TRANSITION_CLEANUP,
        }
        request = ChangeState.Request(transition=Transition(id=ids[label]))
        return bool(self._call(ChangeState, "/mfuser/change_state", request).success)

    def state(self) -> str:
        """Label of the lifecycle state."""
        from lifecycle_msgs.srv import GetState

        return str(self._call(GetState, "/mfuser/get_state", GetState.Request()).current_state.label)

    def _call(self, service: Any, name: str, request: Any) -> Any:
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.graph.node.create_client(service, name)
        self.graph.wait(client.service_is_ready, f"no service {name}")
        future = client.call_async(request)
        self.graph.wait(future.done, f"no answer from {name}")
        return future.result()


@pytest.fixture
def bench(graph) -> Iterator[Callable[..., Bench]]:
    """Makes the node with parameters by name (`__` stands for a dot), and waits until it is active."""

    def make(*, wait: bool = True, options: dict[str, Any] | None = None, **parameters: Any) -> Bench:
        values = PATIENT | {name.replace("__", "."): value for name, value in parameters.items()}
        made = Bench(graph, values, dict(options or {}))
        if wait:
            made.wait_until_active()
        return made

    return make


@pytest.fixture(scope="module")
def shared(shared_graph) -> Bench:
    """A node for all tests of a module, active, without a grid."""
    made = Bench(shared_graph, PATIENT | {"grid.enabled": False}, {})
    made.wait_until_active()
    return made


def road_scene(height: int = 240, width: int = 320) -> np.ndarray:
    """RGB for the stand-in: sky above the horizon, sure road below, a car ahead on the left."""
    scene = np.zeros((height, width, 3), np.uint8)  # red is the class
    scene[..., 2] = 255  # blue is the confidence
    scene[: height // 2, :, 0] = 10
    scene[height // 2 - 20 : height // 2 + 30, 60:120, 0] = 13
    return scene


@pytest.fixture
def road() -> np.ndarray:
    """As `road_scene`."""
    return road_scene()


@pytest.fixture
def forward() -> list[float]:
    """As `FORWARD`."""
    return list(FORWARD)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Starts stand-in nodes and ends them."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    processes = []

    def start(*arguments):
        command = [sys.executable, str(Path(__file__).with_name("stand_in_node.py")), *arguments]
        processes.append(subprocess.Popen(command, env=os.environ))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
