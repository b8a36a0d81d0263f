"""Processing times as topics, with the names and meanings that Autoware's checkers know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builtin_interfaces.msg import Time
from std_msgs.msg import Float64

from mfuser_ros.node import interface
from mfuser_ros.node.topics import Topics
from mfuser_ros.node.watchdog import STAGES

if TYPE_CHECKING:
    from mfuser_ros.inference import Timing  # torch is loaded when the node is configured


class TimingTopics:
    """The topics `~/debug/…_ms`: Float64Stamped where Autoware's messages are installed, Float64 elsewhere."""

    def __init__(self, topics: Topics) -> None:
        self._publishers = {name: topics.publisher(row) for name, row in interface.TIMES.items()}

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
            publisher = self._publishers[name]
            if value is not None and publisher.get_subscription_count():
                publisher.publish(_message(publisher.msg_type, now, float(value)))


def _message(message_type: Any, now: Time, value: float) -> Any:  # Any: Float64 or Autoware's Float64Stamped
    return Float64(data=value) if message_type is Float64 else message_type(stamp=now, data=value)
