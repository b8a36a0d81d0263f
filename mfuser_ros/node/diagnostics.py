"""Reports of the cameras on /diagnostics, once a second and whenever a level changes."""

from __future__ import annotations

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from mfuser_ros.node import interface
from mfuser_ros.node.health import Level, Report
from mfuser_ros.node.topics import Topics

# the field is a byte: a plain number would go out as 0xff
_LEVELS = {
    Level.OK: DiagnosticStatus.OK,
    Level.WARN: DiagnosticStatus.WARN,
    Level.ERROR: DiagnosticStatus.ERROR,
}


class Diagnostics:
    """The topic /diagnostics with one status for each camera, `mfuser: <cam>`, and one for the processing time."""

    def __init__(self, topics: Topics) -> None:
        self._publisher = topics.publisher(interface.DIAGNOSTICS)
        self._levels: dict[str, Level] = {}

    def publish(self, now: Time, reports: Mapping[str, Report], *, regular: bool) -> None:
        """Publish reports by name: always if `regular`, else only if a level is another than told before."""
        levels = {name: report.level for name, report in reports.items()}
        if not regular and levels == self._levels:
            return
        self._levels = levels
        array = DiagnosticArray()
        array.header.stamp = now
        array.status = [_status(name, report) for name, report in reports.items()]
        self._publisher.publish(array)


def _status(name: str, report: Report) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=_LEVELS[report.level],
        name=f"mfuser: {name}",
        message=report.message,
        hardware_id=report.values.get("device", ""),
        values=[KeyValue(key=key, value=value) for key, value in report.values.items()],
    )
