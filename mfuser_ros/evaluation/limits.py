"""Limits on the figures of a summary, such as miou>=0.6: what a release must keep."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mfuser_ros.errors import ConfigurationError

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"\s*(?P<metric>[^<>=]+?)\s*(?P<sign>>=|<=|>|<)\s*(?P<bound>[^<>=]+?)\s*")


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        metric: path into the summary with points, such as miou, road.precision, latency_ms.p95, classes.car.iou.
        sign: >=, <=, > or <.
        bound: what the metric is compared with.
    """

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"

    def holds(self, value: float | None) -> bool:
        """Whether a value keeps the limit; what was not measured keeps none."""
        return value is not None and _COMPARISONS[self.sign](value, self.bound)


def parse_limit(text: str) -> Limit:
    """A limit as it is written on the command line.

    Raises:
        ConfigurationError: it has another form.
    """
    found = _FORM.fullmatch(text)
    try:
        return Limit(found["metric"], found["sign"], float(found["bound"])) if found else _refuse(text)
    except ValueError as error:
        raise ConfigurationError(f"limit {text!r}: {error}: write METRIC>=VALUE, such as miou>=0.6") from error


def judge(summary: Mapping[str, Any], limits: Sequence[Limit]) -> list[dict[str, Any]]:  # JSON
    """The entries of `limits` in summary.json: each limit with the value that was found and whether it holds.

    Raises:
        ConfigurationError: a metric is none of the summary's; the text lists those there are.
    """
    found = []
    for limit in limits:
        value = value_of(summary, limit.metric)
        found.append({"limit": str(limit), "metric": limit.metric, "value": value, "holds": limit.holds(value)})
    return found


def value_of(summary: Mapping[str, Any], metric: str) -> float | None:
    """A number of a summary by its path; None where it was not measured.

    Raises:
        ConfigurationError: there is no such number.
    """
    place: Any = summary
    for step in metric.split("."):
        if isinstance(place, list):
            place = {entry["name"]: entry for entry in place if isinstance(entry, Mapping) and "name" in entry}
        if place is None:  # a part that was not measured, such as the drivable area
            return None
        if not isinstance(place, Mapping) or step not in place:
            choices = ", ".join(_numbers(summary))
            raise ConfigurationError(f"limit on {metric}: no such metric: choose from {choices}")
        place = place[step]
    if place is None:
        return None
    if isinstance(place, bool) or not isinstance(place, (int, float)):
        raise ConfigurationError(f"limit on {metric}: is no number: name one, such as miou or road.precision")
    return float(place)


def _refuse(text: str) -> Limit:
    raise ConfigurationError(f"limit {text!r}: write METRIC>=VALUE (or <=, >, <), such as miou>=0.6")


def _numbers(summary: Mapping[str, Any], before: str = "") -> list[str]:
    names = []
    for key, value in summary.items():
        if key in ("version", "settings", "environment"):
            continue
        if isinstance(value, Mapping):
            names += _numbers(value, f"{before}{key}.")
        elif key == "classes":
            names.append("classes.NAME.iou")
        elif not isinstance(value, (bool, str, list)):
            names.append(before + key)
    return names
