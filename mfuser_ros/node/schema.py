"""JSON schema of the node's parameter files, from the table of parameters.

Editors that know YAML schemas complete and check a file by it: config/segment.param.yaml names it in its first line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from mfuser_ros.node.parameters import CAMERA, NODE, PER_CAMERA, RESERVED_NAMES, Parameter

Schema = dict[str, Any]  # JSON

CAMERA_NAME = rf"(?!(?:{'|'.join(RESERVED_NAMES)})\b)[A-Za-z]\w*"
_SINGLE = ("use_sim_time", *(row.name for row in NODE if "." not in row.name))
GROUP_NAME = rf"(?!(?:{'|'.join(_SINGLE)})$){CAMERA_NAME}"
_TYPES = {"bool": "boolean", "double": "number", "int": "integer", "string": "string"}


def json_schema() -> Schema:
    """Schema (draft 2020-12) of a file with parameters of one or more nodes, names with dots or nested."""
    parameters = {
        "type": "object",
        "properties": {
            **_nested(NODE, ""),
            "use_sim_time": {"type": "boolean", "description": "Take the time from /clock."},
            "qos_overrides": {"type": "object", "description": "QoS by topic, as rclpy declares it."},
        },
        "patternProperties": {
            rf"^{GROUP_NAME}$": _group(PER_CAMERA, f"{CAMERA}."),
            **{
                rf"^{CAMERA_NAME}\.{re.escape(row.name.removeprefix(f'{CAMERA}.'))}$": _value(row) for row in PER_CAMERA
            },
            r"^qos_overrides\..+": {},
        },
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Parameters of the node mfuser",
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": {"ros__parameters": parameters},
            "required": ["ros__parameters"],
            "additionalProperties": False,
        },
    }


def schema_text() -> str:
    """Text of config/segment.schema.json."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def _nested(rows: Iterable[Parameter], prefix: str) -> Schema:
    """Properties for rows: each by its name with dots, and by the groups that the dots make."""
    rows = list(rows)
    groups: dict[str, list[Parameter]] = {}
    properties: Schema = {}
    for row in rows:
        name = row.name.removeprefix(prefix)
        properties[name] = _value(row)
        if "." in name:
            groups.setdefault(name.partition(".")[0], []).append(row)
    for group, members in groups.items():
        properties[group] = _group(members, f"{prefix}{group}.")
    return properties


def _group(rows: Iterable[Parameter], prefix: str) -> Schema:
    return {"type": "object", "properties": _nested(rows, prefix), "additionalProperties": False}


def _value(row: Parameter) -> Schema:
    kind = row.type.removesuffix("[]")
    value: Schema = {"type": _TYPES[kind]}
    if row.choices:
        value["enum"] = list(row.choices)
    if row.range is not None:
        value["minimum"], value["maximum"] = row.range
    if row.type.endswith("[]"):
        value = {"type": "array", "items": value}
        if row.length is not None:
            value["minItems"], value["maxItems"] = row.length
    value["description"] = row.description
    if row.default is not None:
        value["default"] = list(row.default) if isinstance(row.default, tuple) else row.default
    return value
