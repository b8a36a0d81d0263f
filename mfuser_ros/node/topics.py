"""Publishers and subscriptions with the node's conventions: QoS that parameters override, mismatches that are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, qos_policy_name_from_kind

from mfuser_ros.node import qos


class Topics:
    """The topics that come and go together.

    Args:
        node: makes them.
        on_mismatch: called with one line when somebody's QoS fits ours not.
    """

    def __init__(self, node: Node, on_mismatch: Callable[[str], None]) -> None:
        self._node = node
        self._on_mismatch = on_mismatch
        self._publishers: list[Publisher] = []
        self._subscriptions: list[Any] = []  # rclpy's Subscription takes no parameters in older releases

    def publisher(self, message_type: type[Any], topic: str, profile: QoSProfile) -> Publisher:
        """A publisher of `message_type` on `topic`, which is relative to the node."""

        def mismatch(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            self._on_mismatch(f"a subscriber of {topic} gets nothing, it asks for another {policy}")

        publisher = self._node.create_publisher(
            message_type,
            topic,
            profile,
            # every handler costs time in each turn of the executor, so none is made that nobody needs
            event_callbacks=PublisherEventCallbacks(incompatible_qos=mismatch, use_default_callbacks=False),
            qos_overriding_options=qos.overridable(),
        )
        self._publishers.append(publisher)
        return publisher

    def subscription(
        self, message_type: type[Any], topic: str, profile: QoSProfile, callback: Callable[[Any], None]
    ) -> None:
        """Call `callback` with every message of `topic`."""

        def mismatch(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            self._on_mismatch(f"nothing comes from a publisher of {topic}, it offers another {policy}")

        subscription = self._node.create_subscription(
            message_type,
            topic,
            callback,
            profile,
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
