"""Messages that are made from what the node knows."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from mfuser_ros import vocabulary


@dataclass
class VisionClass:
    """As vision_msgs has it: no wheel of vision_msgs exists."""

    class_id: int = 0
    class_name: str = ""


@dataclass
class LabelInfo:
    """As vision_msgs has it, with a header of std_msgs."""

    threshold: float = 0.0
    class_map: list[VisionClass] = field(default_factory=list)
    header: Any = None

    def __post_init__(self) -> None:
        from std_msgs.msg import Header

        self.header = Header()


@pytest.fixture
def vision_msgs(ros, monkeypatch) -> None:
    """vision_msgs is installed."""
    messages = ModuleType("vision_msgs.msg")
    messages.LabelInfo, messages.VisionClass = LabelInfo, VisionClass
    monkeypatch.setitem(sys.modules, "vision_msgs", ModuleType("vision_msgs"))
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", messages)


def test_label_info_names_every_class_and_what_255_means(vision_msgs):
    from builtin_interfaces.msg import Time

    from mfuser_ros.node.outgoing import label_info_message

    message = label_info_message(vocabulary.load(), 0.25, Time(sec=7))

    names = {entry.class_id: entry.class_name for entry in message.class_map}
    assert len(message.class_map) == 20
    assert (names[0], names[11], names[18], names[255]) == ("road", "person", "bicycle", "unlabeled")
    assert (message.threshold, message.header.stamp.sec) == (0.25, 7)


def test_without_vision_msgs_there_is_no_label_info(ros, monkeypatch):
    from builtin_interfaces.msg import Time

    from mfuser_ros.node.outgoing import label_info_message

    monkeypatch.setitem(sys.modules, "vision_msgs", None)

    with pytest.raises(ImportError):
        label_info_message(vocabulary.load(), 0.25, Time())
