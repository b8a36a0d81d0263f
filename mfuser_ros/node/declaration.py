"""Parameters of the table on a node: declared, read, checked before they change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.node.parameters import Parameter, rows
from mfuser_ros.node.settings import Settings, camera_names, settings

PATHS = ("model", "vocabulary")
"""Parameters that may be paths of files."""


class DeclaredParameters:
    """The node's parameters.

    A value from the command line or a file that cannot be used does not stop the node from being made; `settings` tells
    it. Types are checked here and not by rclpy (`dynamic_typing`), so that a whole number does for a double.

    Paths of files come from the command line or a file only: who may set parameters of a running node shall not make it
    read another file.

    Args:
        node: declares them.
        on_change: called with the new settings when one was changed while `lock` holds.
    """

    def __init__(self, node: Node, on_change: Callable[[Settings], None]) -> None:
        self._node = node
        self._on_change = on_change
        self._rows: dict[str, Parameter] = {}
        self._problems: dict[str, ConfigurationError] = {}
        # rclpy has no public way to the overrides that nobody declared
        self._overrides: dict[str, RosParameter] = node._parameter_overrides
        self._locked = False
        self._declaring = False
        self._declare(rows(()))
        try:
            self._declare_cameras()
        except ConfigurationError as error:
            self._problems["cameras"] = error
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)

    def lock(self) -> None:
        """From now on only run-time parameters may change: the node is configured."""
        self._locked = True

    def unlock(self) -> None:
        """Every parameter may change: the node is not configured."""
        self._locked = False

    def value(self, name: str) -> object:
        """Value of one parameter; None if it is unset."""
        return self._node.get_parameter(name).value

    def settings(self) -> Settings:
        """All parameters, checked.

        Raises:
            ConfigurationError: the first that cannot work.
        """
        for problem in self._problems.values():
            raise problem
        self._declare_cameras()
        for problem in self._problems.values():
            raise problem
        return settings(self._values())

    def unused_overrides(self) -> list[str]:
        """Names from the command line and parameter files that no parameter has."""
        return sorted(name for name in self._overrides if not self._node.has_parameter(name))

    def _values(self) -> dict[str, object]:
        return {name: self.value(name) for name in self._rows}

    def _declare_cameras(self) -> None:
        self._declare(row for row in rows(camera_names(self.value("cameras"))) if row.name not in self._rows)

    def _declare(self, new_rows: Iterable[Parameter]) -> None:
        self._declaring = True
        try:
            for row in new_rows:
                override = self._overrides.get(row.name)
                try:
                    row.checked(None if override is None else override.value)
                except ConfigurationError as error:
                    self._problems[row.name] = error
                default = list(row.default) if isinstance(row.default, tuple) else row.default
                self._node.declare_parameter(
                    row.name, default, _descriptor(row), ignore_override=row.name in self._problems
                )
                self._rows[row.name] = row
        finally:
            self._declaring = False

    def _check(self, parameters: list[RosParameter]) -> SetParametersResult:
        ours = {} if self._declaring else {entry.name: entry.value for entry in parameters if entry.name in self._rows}
        try:
            for name, value in ours.items():
                if self._locked and not self._rows[name].run_time:
                    raise ConfigurationError(f"{name} is fixed while the node is configured: clean up first")
                if value is None:
                    raise ConfigurationError(f"{name} cannot be unset: give a value")
                if name in PATHS and not self._may_be_read(name, value):
                    raise ConfigurationError(f"{name} is '{value}', a path: give it when the node is started")
                self._rows[name].checked(value)
            if "cameras" in ours:
                camera_names(ours["cameras"])
            if self._locked and ours:
                settings(self._values() | ours)
        except ConfigurationError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _may_be_read(self, name: str, value: object) -> bool:
        """Whether the value names no file beside those of models/ and those that the node was started with."""
        given = self._overrides.get(name)
        if given is not None and value == given.value:
            return True
        if name == "model":
            return re.fullmatch(r"[\w-]+", str(value), re.ASCII) is not None
        return value == self._rows[name].default

    def _apply(self, parameters: list[RosParameter]) -> None:
        if self._declaring:
            return
        changed = [entry.name for entry in parameters if entry.name in self._rows]
        for name in changed:
            self._problems.pop(name, None)
        if changed and self._locked:
            self._on_change(settings(self._values()))


def _descriptor(row: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=row.description,
        additional_constraints=", ".join(row.choices),
        dynamic_typing=True,
        read_only=row.name == "autostart",  # has had its effect when somebody can set it
    )
    if row.range is not None and row.type == "double":
        least, most = map(float, row.range)
        descriptor.floating_point_range = [FloatingPointRange(from_value=least, to_value=most)]
    elif row.range is not None:
        least, most = map(int, row.range)
        descriptor.integer_range = [IntegerRange(from_value=least, to_value=most, step=1)]
    return descriptor
