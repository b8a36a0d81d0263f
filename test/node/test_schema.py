"""The JSON schema of parameter files, judged by a few lines of JSON Schema of the test's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mfuser_ros.node.parameters import yaml_text
from mfuser_ros.node.schema import json_schema, schema_text

REPOSITORY = Path(__file__).resolve().parents[2]
KNOWN = {
    "$schema", "title", "description", "default", "type", "enum", "minimum", "maximum", "items", "minItems", "maxItems",
    "properties", "patternProperties", "additionalProperties", "required",
}  # fmt: skip
TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
}  # fmt: skip


def problems(value: Any, schema: Any, path: str = "") -> list[str]:
    """Paths of what a schema forbids; the keywords that ours uses, after the specification (2020-12)."""
    if isinstance(schema, bool):
        return [] if schema else [path]
    assert set(schema) <= KNOWN
    found = []
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [path]
    if value not in schema.get("enum", [value]):
        found.append(path)
    if isinstance(value, (int, float)) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(path)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            found.append(path)
        for index, item in enumerate(value):
            found += problems(item, schema.get("items", True), f"{path}[{index}]")
    if isinstance(value, dict):
        found += [f"{path}/{name}" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            rules = [schema["properties"][name]] if name in schema.get("properties", {}) else []
            rules += [rule for text, rule in schema.get("patternProperties", {}).items() if re.search(text, name)]
            rules = rules or [schema.get("additionalProperties", True)]
            found += [problem for rule in rules for problem in problems(item, rule, f"{path}/{name}")]
    return found


def judge(parameters: dict[str, Any]) -> list[str]:
    prefix = "//**/ros__parameters/"
    return [path.removeprefix(prefix) for path in problems({"/**": {"ros__parameters": parameters}}, json_schema())]


def test_shipped_schema_is_what_the_table_says():
    assert (REPOSITORY / "config" / "segment.schema.json").read_text() == schema_text(), (
        "write it again: python -c \"from mfuser_ros.node.schema import schema_text; print(schema_text(), end='')\""
    )


def test_shipped_parameter_file_fits_and_names_the_schema():
    assert problems(yaml.safe_load(yaml_text()), json_schema()) == []
    assert yaml_text().splitlines()[0] == "# yaml-language-server: $schema=segment.schema.json"


@pytest.mark.parametrize(
    "parameters",
    [
        {"cameras": ["left"], "left.image_topic": "left/image", "left.pose": [0, 0, 1.5, -1.57, 0, -1.57]},
        {"left": {"image_topic": "left/image", "roi": [0, 0, 64, 64]}, "grid": {"resolution": 0.1}},
        {"use_sim_time": True, "qos_overrides./front/image_raw.subscription.depth": 3, "max_rate": 10},
        {"diagnostics.stale_after": 2.0, "diagnostics": {"warn_latency": 0.1}},
    ],
)
def test_good_file_fits(parameters):
    assert judge(parameters) == []


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"modell": "small"}, "modell"),
        ({"front.posse": [0.0] * 6}, "front.posse"),
        ({"front": {"posse": [0.0] * 6}}, "front/posse"),
        ({"grid": {"cells": 3}}, "grid/cells"),
        ({"grid.cells": 3}, "grid.cells"),
        ({"max_rate": 200.0}, "max_rate"),
        ({"max_rate": "fast"}, "max_rate"),
        ({"precision": "int8"}, "precision"),
        ({"cameras": []}, "cameras"),
        ({"front.pose": [0.0] * 5}, "front.pose"),
        ({"front": {"transport": "theora"}}, "front/transport"),
        ({"grid.enabled": 1}, "grid.enabled"),
    ],
)
def test_bad_value_is_found(parameters, path):
    assert judge(parameters) == [path]
