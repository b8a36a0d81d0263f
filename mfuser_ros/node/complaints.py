"""What the node says of itself on /diagnostics, as one who plays to it hears it."""

from __future__ import annotations

from collections.abc import Collection

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy


class Complaints:
    """Listens to the statuses with the given names. As text: the newest error of one of them, empty without any.

    Attributes:
        values: newest key-value pairs of one of them; empty before the first.
    """

    def __init__(self, node: Node, names: Collection[str]) -> None:
        """Listen by a subscription of `node`; names are such as `mfuser: front`."""
        self._errors = dict.fromkeys(names, "")
        self.values: dict[str, str] = {}
        profile = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=10, reliability=QoSReliabilityPolicy.RELIABLE)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._keep, profile)

    def __str__(self) -> str:
        return next(filter(None, self._errors.values()), "")

    def __bool__(self) -> bool:
        return bool(str(self))

    @property
    def has_failed(self) -> bool:
        """Whether a transition of the node has failed; other errors may pass."""
        return any(" failed: " in error for error in self._errors.values())

    def _keep(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name in self._errors:
                self.values = {pair.key: pair.value for pair in status.values}
                self._errors[status.name] = status.message if status.level == DiagnosticStatus.ERROR else ""
