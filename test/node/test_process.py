import time

import pytest
import yaml

from mfuser_ros.errors import NodeError
from mfuser_ros.node.process import NodeProcess


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Puts a module `mfuser_ros.node` with the given text in the node's place, for a process that shall misbehave."""

    def place(text):
        folder = tmp_path / "package" / "mfuser_ros"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "node.py").write_text(text)
        monkeypatch.chdir(tmp_path / "package")  # python -m looks here first
        return tmp_path / "out"

    return place


def wait_for_line(process, line):
    """Wait for a line of the log or for the error that tells the end of the process."""
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:
        if process.log.read_text() == line + "\n":
            return
        process.check()
        time.sleep(0.01)  # a poll, not a guess: files tell nobody that they grew
    pytest.fail(f"no line {line!r} in the log: {process.log.read_text()!r}")


def test_dead_node_is_told_with_exit_code_and_last_line(package):
    out = package("import sys\nprint('loading')\nprint('no such weights', end='\\n\\n')\nsys.exit(7)\n")
    with (
        NodeProcess({}, folder=out, environment={}) as process,
        pytest.raises(NodeError, match=r"ended with exit code 7: no such weights \(log: .*node.log\)"),
    ):
        wait_for_line(process, "never")


def test_silent_death_is_told_too(package):
    out = package("")
    with (
        NodeProcess({}, folder=out, environment={}) as process,
        pytest.raises(NodeError, match="exit code 0: it wrote nothing"),
    ):
        wait_for_line(process, "never")


def test_parameters_and_environment_reach_the_process(package):
    out = package("import os, sys\nprint(os.environ['MFUSER_TEST'], sys.argv[1:3])\nsys.stdin.read()\n")
    parameters = {"front.pose": [0.0, 1.5], "model": "small"}
    with (
        NodeProcess(parameters, folder=out, environment={"MFUSER_TEST": "x"}) as process,
        pytest.raises(NodeError, match=r"x \['--ros-args', '--params-file'\]"),
    ):
        wait_for_line(process, "never")
    content = yaml.safe_load((out / "node.param.yaml").read_text())
    assert content == {"/**": {"ros__parameters": parameters}}


def test_end_of_the_block_interrupts_the_process(package):
    out = package(
        "import sys, threading\nprint('ready')\n"
        "try:\n    threading.Event().wait(60)\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    )
    with NodeProcess({}, folder=out, environment={}) as process:
        wait_for_line(process, "ready")
    assert process.log.read_text().splitlines() == ["ready", "interrupted"]


def test_process_that_ignores_the_interrupt_is_killed(package, monkeypatch):
    monkeypatch.setattr("mfuser_ros.node.process.STOP_S", 0.3)
    out = package(
        "import signal, threading\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('ready')\nthreading.Event().wait(60)\n"
    )
    with NodeProcess({}, folder=out, environment={}) as process:
        wait_for_line(process, "ready")
    with pytest.raises(NodeError, match="exit code -9: ready"):
        process.check()
