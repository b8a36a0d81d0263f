"""The lifecycle node `mfuser`."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState, Node, TransitionCallbackReturn

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.node.declaration import DeclaredParameters
from mfuser_ros.node.diagnostics import Diagnostics
from mfuser_ros.node.health import Level, Report
from mfuser_ros.node.lines import one_line
from mfuser_ros.node.pipeline import Pipeline
from mfuser_ros.node.settings import Settings, camera_names
from mfuser_ros.node.stamps import SECOND_NS
from mfuser_ros.node.topics import Topics

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmenter  # torch is loaded when the node is configured

WARM_UP_SIZE = (720, 1280)  # height, width
WATCH_PERIOD_S = 0.1
REPORT_PERIOD_NS = SECOND_NS


def load_segmenter(settings: Settings) -> Segmenter:
    """The model that the parameters ask for.

    Raises:
        MFuserError: weights, device or setting cannot be used.
    """
    from mfuser_ros.inference import load  # noqa: PLC0415  torch takes seconds; SIGINT must find a node by then

    return load(
        settings.model,
        device=settings.device,
        threshold=settings.threshold,
        input_size=settings.input_size,
        precision=settings.precision,  # type: ignore[arg-type]  # one of the choices of its row
        vocabulary=settings.vocabulary or None,
    )


class MFuserNode(Node):  # type: ignore[misc]  # rclpy is untyped here
    """Segments the pictures of vehicle cameras and publishes masks and the drivable area.

    Args:
        load: makes the Segmenter when the node is configured.
        options: for rclpy's Node, such as `context`, `namespace`, `parameter_overrides` or `cli_args`.
    """

    def __init__(self, *, load: Callable[[Settings], Segmenter] = load_segmenter, **options: Any) -> None:
        super().__init__("mfuser", **options)
        self._load = load
        self._pipeline: Pipeline | None = None
        self._failure = ""
        self._unused: set[str] = set()
        self._inputs = Topics(self, self._on_mismatch)
        self._outputs = Topics(self, self._on_mismatch)
        self._declared = DeclaredParameters(self, self._on_change)
        self._diagnostics = Diagnostics(Topics(self, self._on_mismatch))
        self._next_report_ns = 0
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True),
            post_callback=lambda _: self._on_jump(),
        )
        # A steady clock: with use_sim_time and no /clock no other timer would fire.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._watch_timer = self.create_timer(WATCH_PERIOD_S, self._watch, clock=steady)
        self._start_timer = None
        if self._declared.value("autostart"):
            self._start_timer = self.create_timer(0.0, self._start, clock=steady)

    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the model, make the publishers, publish what the ids mean."""
        return self._transition("configure", self._configure)

    def on_activate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and begin to work."""
        return self._transition("activate", self._activate)

    def on_deactivate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, finish the picture in work, publish a grid that knows nothing."""
        return self._transition("deactivate", self._deactivate)

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and its memory."""
        return self._transition("cleanup", self._release)

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """As deactivate and cleanup, from any state."""
        return self._transition("shutdown", self._release)

    def on_error(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured."""
        return self._transition("error handling", self._release)

    def stop(self, timeout: float) -> bool:
        """End all work before the process ends; returns whether the worker has ended within `timeout` seconds."""
        self._inputs.destroy()
        return self._pipeline is None or self._pipeline.deactivate(timeout)

    def destroy_node(self) -> None:
        """End all work and take the node away."""
        self._release()
        self._jump.unregister()
        super().destroy_node()

    def _transition(self, name: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            action()
        except Exception as error:  # rclpy would swallow the text
            if not self.context.ok():
                raise
            self._failure = f"{name} failed: {one_line(error)}"
            self.get_logger().error(self._failure)
            self._report(regular=True)
            return TransitionCallbackReturn.FAILURE
        self._failure = ""
        return TransitionCallbackReturn.SUCCESS

    def _start(self) -> None:
        assert self._start_timer is not None
        self.destroy_timer(self._start_timer)
        self._start_timer = None
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _configure(self) -> None:
        settings = self._declared.settings()
        steps = 3
        try:
            self._tell_progress(f"1 of {steps}: loading model {settings.model} for device {settings.device}")
            segmenter = self._load(settings)
            self._tell_progress(f"2 of {steps}: warming up {segmenter.name} on {segmenter.device}")
            segmenter.warm_up(*WARM_UP_SIZE)
            self._tell_progress(f"3 of {steps}: making the publishers")
            self._pipeline = Pipeline(self, self._outputs, settings, segmenter)
        except BaseException:
            self._release()
            raise
        self._declared.lock()
        self._warn_of_unused_overrides(
            name for name in self._declared.unused_overrides() if not name.startswith("qos_overrides.")
        )
        self.get_logger().info(f"model {segmenter.name} is ready on {segmenter.device} in {segmenter.precision}")

    def _tell_progress(self, step: str) -> None:
        """Say how far the configuration is; no timer fires meanwhile, so the report goes out here."""
        self.get_logger().info(f"configuring, {step}")
        reports = {name: Report(Level.WARN, f"configuring, {step}", {}) for name in self._names()}
        self._diagnostics.publish(self.get_clock().now().to_msg(), reports, regular=True)

    def _activate(self) -> None:
        assert self._pipeline is not None
        try:
            self._pipeline.activate(self._inputs)
        except BaseException:
            self._deactivate()
            raise
        self._warn_of_unused_overrides(self._declared.unused_overrides())  # QoS of the subscriptions is known now

    def _deactivate(self) -> None:
        self._inputs.destroy()
        if self._pipeline is not None:
            self._pipeline.deactivate()

    def _release(self) -> None:
        self._deactivate()
        self._pipeline = None
        self._outputs.destroy()
        self._declared.unlock()
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _warn_of_unused_overrides(self, names: Iterable[str]) -> None:
        unused = sorted(set(names) - self._unused)
        if unused:
            self._unused.update(unused)
            self.get_logger().warning(f"parameters that do not exist: {', '.join(unused)}: check their names")

    def _on_change(self, settings: Settings) -> None:
        if self._pipeline is not None:
            self._pipeline.change(settings)

    def _on_jump(self) -> None:
        if self._pipeline is not None:
            self.get_logger().info("time has jumped backwards: starting afresh")
            self._pipeline.reset()

    def _on_mismatch(self, text: str) -> None:
        if self._pipeline is not None:
            self._pipeline.note_mismatch(text)
        else:
            self.get_logger().warning(f"QoS: {text}")

    def _watch(self) -> None:
        if self._pipeline is not None:
            self._pipeline.watch()
        now_ns = time.monotonic_ns()
        regular = now_ns >= self._next_report_ns
        if regular:
            self._next_report_ns = now_ns + REPORT_PERIOD_NS
        self._report(regular=regular)

    def _report(self, *, regular: bool) -> None:
        if self._pipeline is not None:
            reports = dict(self._pipeline.report(regular=regular))
        else:
            text = "not configured: configure and activate the node"
            reports = {name: Report(Level.WARN, text, {}) for name in self._names()}
        if self._failure:
            reports = {
                name: Report(Level.ERROR, self._failure, report.values | {"last_error": self._failure})
                for name, report in reports.items()
            }
        self._diagnostics.publish(self.get_clock().now().to_msg(), reports, regular=regular)

    def _names(self) -> tuple[str, ...]:
        try:
            return camera_names(self._declared.value("cameras"))
        except ConfigurationError:
            return ("cameras",)
