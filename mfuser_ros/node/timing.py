"""Processing times as topics, with the names and meanings that Autoware's checkers know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builtin_interfaces.msg import Time
from std_msgs.msg import Float64

from mfuser_ros.node import qos
from mfuser_ros.node.topics import Topics

try:
    from autoware_internal_debug_msgs.msg import Float64Stamped
except ImportError:
    Float64Stamped = None

if TYPE_CHECKING:
    from mfuser_ros.inference import Timing  # torch is loaded when the node is configured

STAGES = ("preprocess", "inference", "postprocess")


class TimingTopics:
    """The topics `~/debug/…_ms`: Float64Stamped where Autoware's messages are installed, Float64 elsewhere."""

    def __init__(self, topics: Topics) -> None:
        names = ["processing_time", "cyclic_time", "pipeline_latency"]
        names += [f"processing_time/{stage}" for stage in STAGES]
        message_type = Float64Stamped or Float64
        self._publishers = {name: topics.publisher(message_type, f"~/debug/{name}_ms", qos.results()) for name in names}

    def publish(
        self,
        now: Time,
        *,
        processing_ms: float,
        cyclic_ms: float | None,
        latency_ms: float | None,
        stages: Timing | None,
    ) -> None:
        """Publish the times of one picture, milliseconds; None for what could not be measured."""
        times = {"processing_time": processing_ms, "cyclic_time": cyclic_ms, "pipeline_latency": latency_ms}
        if stages is not None:
            times |= {f"processing_time/{stage}": getattr(stages, f"{stage}_ms") for stage in STAGES}
        for name, value in times.items():
            if value is not None:
                self._publishers[name].publish(_message(now, float(value)))


def _message(now: Time, value: float) -> Float64:
    return Float64(data=value) if Float64Stamped is None else Float64Stamped(stamp=now, data=value)
