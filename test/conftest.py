"""ROS for the tests: isolated, loud where it is missing, and waited for by events, never by sleeping.

The environment is set here because rclpy, its messages and triton read it when they are imported.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DEADLINE_S = 20.0


def _isolate_ros() -> None:
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
    base = int(os.environ.get("MFUSER_TEST_DOMAIN_ID") or os.environ.get("ROS_DOMAIN_ID") or 30)
    os.environ["MFUSER_TEST_DOMAIN_ID"] = str(base)  # the workers inherit it, and count from there
    os.environ["ROS_DOMAIN_ID"] = str((base + worker) % 102)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
    os.environ["ROS_LOG_DIR"] = tempfile.mkdtemp(prefix="mfuser_test_ros_log_")
    os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(REPOSITORY / "config" / "fastdds_shm.xml")


def _interpret_triton() -> None:
    """Without a GPU the Triton kernels run in its interpreter, which must be chosen before triton is imported."""
    if not Path("/dev/nvidiactl").exists():
        os.environ.setdefault("TRITON_INTERPRET", "1")


_isolate_ros()
_interpret_triton()


def pytest_unconfigure() -> None:
    """Remove the log files of the nodes."""
    shutil.rmtree(os.environ["ROS_LOG_DIR"], ignore_errors=True)


def require_ros() -> Any:
    """rclpy; where it is missing the test is skipped, or fails if MFUSER_REQUIRE_ROS says that it must be there."""
    try:
        import rclpy
        import sensor_msgs.msg  # noqa: F401
    except ImportError as error:
        reason = f"rclpy cannot be imported ({error}): pip install mfuser_ros[ros], or source a ROS 2 installation"
        if os.environ.get("MFUSER_REQUIRE_ROS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return rclpy


class Graph:
    """A node of the test's own in a context of its own, spun in a thread."""

    def __init__(self, rclpy: Any) -> None:
        from rclpy.executors import SingleThreadedExecutor

        self._rclpy = rclpy
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=int(os.environ["ROS_DOMAIN_ID"]))
        self.node = rclpy.create_node("probe", context=self.context)
        self._executors: list[Any] = []
        self._threads: list[threading.Thread] = []
        self._nodes: list[Any] = []
        self._executor_class = SingleThreadedExecutor
        self.spin(self.node)

    def spin(self, node: Any) -> Any:
        """Spin a node of this context in a thread until the end of the test."""
        executor = self._executor_class(context=self.context)
        executor.add_node(node)
        thread = threading.Thread(target=self._spin, args=(executor,), daemon=True)
        thread.start()
        self._executors.append(executor)
        self._threads.append(thread)
        self._nodes.append(node)
        return node

    def _spin(self, executor: Any) -> None:
        from rclpy.executors import ExternalShutdownException

        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    def collect(self, message_type: Any, topic: str, qos: Any = 10) -> list[Any]:
        """A list that every message of a topic is appended to, once a publisher is there or not."""
        messages: list[Any] = []
        self.node.create_subscription(message_type, topic, messages.append, qos)
        return messages

    def publisher(self, message_type: Any, topic: str, qos: Any = 10) -> Any:
        """A publisher of the test's node."""
        return self.node.create_publisher(message_type, topic, qos)

    def wait(self, condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
        """What `condition` returns once it is true; fails with what the graph looks like if that takes too long."""
        end = time.monotonic() + deadline_s
        changed = threading.Event()
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            changed.wait(0.01)
        topics = [
            f"{name} (publishers {self.node.count_publishers(name)}, subscribers {self.node.count_subscribers(name)})"
            for name, _ in self.node.get_topic_names_and_types()
        ]
        pytest.fail(f"after {deadline_s} s: {what}; the graph: {', '.join(topics)}")

    def repeat(self, action: Callable[[], None], condition: Callable[[], Any], what: str, deadline_s: float) -> Any:
        """Do something again and again until `condition` is true, as `wait` does."""
        last_s = 0.0

        def act_and_look() -> Any:
            nonlocal last_s
            if time.monotonic() - last_s > 0.2:
                last_s = time.monotonic()
                action()
            return condition()

        return self.wait(act_and_look, what, deadline_s)

    def wait_for_match(self, publisher: Any, count: int = 1) -> None:
        """Wait until `count` subscribers are connected to a publisher."""
        what = f"{publisher.topic_name} has fewer than {count} readers"
        self.wait(lambda: publisher.get_subscription_count() >= count, what)

    def wait_for_publisher(self, topic: str) -> None:
        """Wait until somebody publishes a topic."""
        self.wait(lambda: self.node.count_publishers(topic), f"nobody publishes {topic}")

    def close(self) -> None:
        """End all threads and the context."""
        for executor in self._executors:
            executor.shutdown()
        for thread in self._threads:
            thread.join(DEADLINE_S)
        for node in self._nodes:
            node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture(scope="session")
def ros() -> Any:
    """rclpy, as `require_ros` gives it."""
    return require_ros()


@pytest.fixture
def graph() -> Iterator[Graph]:
    """A ROS graph of the test's own, with a node to publish and listen."""
    made = Graph(require_ros())
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_graph() -> Iterator[Graph]:
    """A ROS graph for all tests of a module."""
    made = Graph(require_ros())
    yield made
    made.close()
