"""Publishers and subscriptions with the node's conventions: QoS that parameters override, mismatches that are told."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, qos_policy_name_from_kind

from mfuser_ros.node import qos
from mfuser_ros.node.interface import Topic


def message_class(name: str) -> Any:  # Any: messages have no common class
    """Class of a message type such as `sensor_msgs/msg/Image`.

    Raises:
        ImportError: its package is not installed.
    """
    package, kind, message = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), message)


class Topics:
    """The topics that come and go together.

    Args:
        node: makes them.
        on_mismatch: called with one line when somebody's QoS fits ours not, where a topic has no such function of its
            own.
    """

    def __init__(self, node: Node, on_mismatch: Callable[[str], None]) -> None:
        self._node = node
        self._on_mismatch = on_mismatch
        self._publishers: list[Publisher] = []
        self._subscriptions: list[Any] = []  # rclpy's Subscription takes no parameters in older releases

    def publisher(
        self, row: Topic, profile: QoSProfile | None = None, *, on_mismatch: Callable[[str], None] | None = None
    ) -> Publisher:
        """A publisher of one row of the table, with the row's QoS unless a profile is given.

        Raises:
            ImportError: the package of its messages is not installed.
        """

        def mismatch(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            text = f"a subscriber of {row.name} gets nothing, it asks for another {policy}"
            (on_mismatch or self._on_mismatch)(text)

        publisher = self._node.create_publisher(
            _class_of(row),
            row.name,
            profile or qos.PROFILES[row.profile](),
            # every handler costs time in each turn of the executor, so none is made that nobody needs
            event_callbacks=PublisherEventCallbacks(incompatible_qos=mismatch, use_default_callbacks=False),
            qos_overriding_options=qos.overridable(),
        )
        self._publishers.append(publisher)
        return publisher

    def subscription(
        self,
        row: Topic,
        callback: Callable[[Any], None],
        profile: QoSProfile | None = None,
        *,
        topic: str,
        on_mismatch: Callable[[str], None] | None = None,
    ) -> None:
        """Call `callback` with every message of `topic`, which has the type and the QoS of a row."""

        def mismatch(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            text = f"nothing comes from a publisher of {topic}, it offers another {policy}"
            (on_mismatch or self._on_mismatch)(text)

        subscription = self._node.create_subscription(
            message_class(row.type),
            topic,
            callback,
            profile or qos.PROFILES[row.profile](),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=mismatch),
            qos_overriding_options=qos.overridable(),
        )
        self._subscriptions.append(subscription)

    def destroy(self) -> None:
        """Take all of them away."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())
        while self._publishers:
            self._node.destroy_publisher(self._publishers.pop())


def _class_of(row: Topic) -> Any:
    if row.stamped_type:
        try:
            return message_class(row.stamped_type)
        except ImportError:
            pass
    return message_class(row.type)
