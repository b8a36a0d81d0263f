"""The executable `segment`: `python -m mfuser_ros.node --ros-args ...`."""

from __future__ import annotations

import os
import re
import signal
import sys

from mfuser_ros.errors import ConfigurationError

STOP_TIMEOUT_S = 10.0
USAGE = """usage: segment [--ros-args ROS_ARGUMENT...]

Segments the pictures of vehicle cameras; publishes masks and the drivable area.

  segment --ros-args --params-file car.yaml
  segment --ros-args -p cameras:="[front, left]" -p device:=cpu -r __ns:=/perception

Parameters: config/segment.param.yaml. ROS arguments: https://design.ros2.org/articles/ros_command_line_arguments.html
"""


class _Stop:
    """Ends the process on the first SIGINT or SIGTERM, in whatever state it is, with exit code 0.

    rclpy's own handlers are not used: they shut the context down first, so that a node that is still loading its model
    fails with an error and one that is active cannot take its grid back.
    """

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        # launch sends a second one besides the terminal's: it must not disturb the end
        for ignored in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ignored, signal.SIG_IGN)
        self.requested = True
        raise KeyboardInterrupt


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop; returns the exit code: 0, or 2 for arguments that cannot be used."""
    given = sys.argv[1:] if args is None else args
    if any(argument in {"-h", "--help"} for argument in given[: (*given, "--ros-args").index("--ros-args")]):
        print(USAGE, end="")
        return 0
    # torch's threads wait by spinning. On a computer that others use too, they spin for threads that do not run: 10 s
    # for a picture of 0.3 s were seen. OpenMP reads this when torch is imported, later; to sleep costs a sixth more.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stop = _Stop()
    try:
        return _run(stop, args)
    except BaseException as error:
        if stop.requested:
            return 0
        if not isinstance(error, ConfigurationError):
            raise
        print(f"segment: {error}", file=sys.stderr)
        return 2


def _run(stop: _Stop, args: list[str] | None) -> int:
    import rclpy  # noqa: PLC0415  signals are ours from the first moment on
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: PLC0415
    from rclpy.signals import SignalHandlerOptions  # noqa: PLC0415

    from mfuser_ros.node.lines import one_line  # noqa: PLC0415
    from mfuser_ros.node.node import MFuserNode  # noqa: PLC0415

    context = rclpy.Context()
    try:
        rclpy.init(args=args, context=context, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:
        # without the places in rcl's sources
        raise ConfigurationError(re.sub(r", at /[^ ]+:[0-9]+", "", one_line(error))) from error
    node = executor = None
    ended = True
    try:
        executor = SingleThreadedExecutor(context=context)
        node = MFuserNode(context=context)
        executor.add_node(node)
        # an interrupt that comes inside a destructor is swallowed by Python, hence the flag
        while context.ok() and not stop.requested:
            executor.spin_once(timeout_sec=0.5)
    except ExternalShutdownException:
        pass
    except BaseException:
        # an interrupt inside the middleware may come out as another error; asked to stop, the node stops
        if not stop.requested:
            raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if node is not None:
            ended = node.stop(STOP_TIMEOUT_S)
        if ended:
            if executor is not None:
                executor.shutdown()
            if node is not None:
                node.destroy_node()
            context.try_shutdown()
    if not ended:
        # the worker is inside the network; interpreter and middleware cannot be taken down round it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
