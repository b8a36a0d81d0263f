"""The node as a process of its own: start it, notice when it dies, stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from mfuser_ros import share
from mfuser_ros.errors import NodeError

STOP_S = 20.0
"""How long a node may take to end after SIGINT."""


def isolation(domain_id: int, logs: Path) -> dict[str, str]:
    """Environment in which the node and who plays to it hear each other and nobody else, and keep their logs."""
    return {
        "ROS_DOMAIN_ID": str(domain_id),
        "ROS_LOG_DIR": str(logs),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(share.find("config/fastdds_shm.xml")),
    }


class NodeProcess:
    """`python -m mfuser_ros.node` with the given parameters, its output in a log file. Use it as a context manager."""

    def __init__(self, parameters: Mapping[str, Any], *, folder: str | Path, environment: Mapping[str, str]) -> None:
        """Describe the process; it starts when the `with` block is entered.

        Args:
            parameters: of the node, flat names such as `front.pose`. Any: what ROS parameters hold.
            folder: where `node.param.yaml` and `node.log` are written.
            environment: variables to add to this process's own, such as ROS_DOMAIN_ID.
        """
        self.log = Path(folder) / "node.log"
        self._file = Path(folder) / "node.param.yaml"
        self._parameters = dict(parameters)
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NodeProcess:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        content = {"/**": {"ros__parameters": self._parameters}}
        self._file.write_text(yaml.safe_dump(content, default_flow_style=None, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "mfuser_ros.node", "--ros-args", "--params-file", str(self._file)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self._environment
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the node."""
        return self._started().pid

    def check(self) -> None:
        """Do nothing while the process runs.

        Raises:
            NodeError: it has ended; the text holds its exit code and the last line of its log.
        """
        code = self._started().poll()
        if code is not None:
            raise NodeError(f"the node ended with exit code {code}: {self.last_line()} (log: {self.log})")

    def last_line(self) -> str:
        """Last line of the log that says something."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")

    def stop(self) -> None:
        """Interrupt the process and wait until it has ended; kill it after `STOP_S`."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise NodeError("the node was not started: enter the `with` block first")
        return self._process
