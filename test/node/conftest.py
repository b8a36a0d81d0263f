"""The node beside the test in one process: real topics, a network whose answers can be worked out."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

FORWARD = [0.0, 0.0, 1.5, -1.5707963, 0.0, -1.5707963]
"""Pose of a level forward camera 1.5 m above the ground."""


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
        self.masks = graph.collect(Image, "/mfuser/front/mask")
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
        compressed = parameters.get("front.transport") == "compressed"
        self._images = graph.publisher(
            CompressedImage if compressed else Image,
            "/front/image_raw/compressed" if compressed else "/front/image_raw",
        )
        self._infos = graph.publisher(CameraInfo, "/front/camera_info")
        self._stamp_ns = 0

    def wait_until_active(self) -> None:
        """Wait until the node listens, and is connected with all that the test listens to."""
        for publisher in (self._images, self._infos):
            self.graph.wait_for_match(publisher)
        for topic in ("/diagnostics", *(f"/mfuser/front/{name}" for name in ("mask", "confidence", "camera_info"))):
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

    def send(self, pixels: np.ndarray, **changes: Any) -> Any:
        """Publish an RGB picture (height, width, 3); `changes` set fields of the Image. Returns its header."""
        from sensor_msgs.msg import Image

        message = Image(height=pixels.shape[0], width=pixels.shape[1], step=pixels.shape[1] * 3, encoding="rgb8")
        message.header = changes.pop("header", None) or self.header()
        message.data = array.array("B", changes.pop("data", pixels.tobytes()))
        for name, value in changes.items():
            setattr(message, name, value)
        self._images.publish(message)
        return message.header

    def send_compressed(self, data: bytes, text: str = "jpeg") -> Any:
        """Publish a CompressedImage. Returns its header."""
        from sensor_msgs.msg import CompressedImage

        message = CompressedImage(header=self.header(), format=text, data=array.array("B", data))
        self._images.publish(message)
        return message.header

    def send_info(self, height: int = 48, width: int = 64, **changes: Any) -> None:
        """Publish the CameraInfo of a camera that sees 56 degrees, and wait until the node has it."""
        from sensor_msgs.msg import CameraInfo

        info = CameraInfo(header=self.header(), height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
        info.k = [width * 0.9375, 0.0, width / 2 - 0.5, 0.0, width * 0.9375, height / 2 - 0.5, 0.0, 0.0, 1.0]
        for name, value in changes.items():
            setattr(info, name, value)
        self._infos.publish(info)

    def segment(self, pixels: np.ndarray, **changes: Any) -> Any:
        """Publish a picture and return its mask."""
        before = len(self.masks)
        header = self.send(pixels, **changes)
        self.wait(lambda: len(self.masks) > before, "no mask")
        assert self.masks[-1].header == header
        return self.masks[-1]

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

    def status(self) -> Any:
        """The last status of the camera; None before the first."""
        return self.reports[-1].status[0] if self.reports else None

    def wait_for_status(self, level: bytes, text: str = "", *, after: int | None = None) -> Any:
        """The first status with this level and text in its message: from now on, or after so many reports."""
        seen = len(self.reports) if after is None else after

        def find() -> Any:
            for report in self.reports[seen:]:
                for status in report.status:
                    if status.level == level and text in status.message:
                        return status
            return None

        return self.wait(find, f"no status of level {level!r} with {text!r}")

    def values(self) -> dict[str, str]:
        """Keys and values of the last status; none before the first."""
        return {entry.key: entry.value for entry in self.status().values} if self.reports else {}

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
        client = self.graph.node.create_client(service, name)
        self.graph.wait(client.service_is_ready, f"no service {name}")
        future = client.call_async(request)
        self.graph.wait(future.done, f"no answer from {name}")
        self.graph.node.destroy_client(client)
        return future.result()


@pytest.fixture
def bench(graph) -> Iterator[Callable[..., Bench]]:
    """Makes the node with parameters by name (`__` stands for a dot), and waits until it is active."""

    def make(*, wait: bool = True, options: dict[str, Any] | None = None, **parameters: Any) -> Bench:
        values = {"max_age": 0.0} | {name.replace("__", "."): value for name, value in parameters.items()}
        made = Bench(graph, values, dict(options or {}))
        if wait:
            made.wait_until_active()
        return made

    return make


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
