"""The recipes name topics, classes and parameters that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mfuser_ros import vocabulary
from mfuser_ros.node import interface
from mfuser_ros.node.parameters import rows
from mfuser_ros.node.settings import settings

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "docs" / "recipes.md"

pytestmark = pytest.mark.skipif(not RECIPES.exists(), reason="needs the source checkout")


@pytest.fixture(scope="module")
def text() -> str:
    return RECIPES.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def blocks(text) -> list[Any]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]


def find(tree: Any, key: str) -> list[Any]:
    """Values of a key, however deep."""
    if not isinstance(tree, (dict, list)):
        return []
    entries = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    return [value for name, value in entries if name == key] + [
        found for _, value in entries for found in find(value, key)
    ]


def test_every_block_is_yaml_of_ros_parameters(blocks):
    assert len(blocks) == 6
    for block in blocks:
        assert find(block, "ros__parameters")


def test_topics_in_the_recipes_are_those_that_the_node_publishes(text):
    published = {
        row.name.replace("~", "/perception/mfuser"): row for row in interface.expanded(interface.PUBLISHED, ["front"])
    }
    named = {match.rstrip("/") for match in re.findall(r"/perception/mfuser/[a-z_/]+", text)}
    named -= {"/perception/mfuser/debug"}  # a family

    assert named - {"/perception/mfuser"} <= set(published)
    assert len(named) >= 6


def test_layers_subscribe_to_topics_of_their_type(blocks):
    kinds = {
        "map_topic": "nav_msgs/msg/OccupancyGrid",
        "segmentation_topic": "sensor_msgs/msg/Image",
        "confidence_topic": "sensor_msgs/msg/Image",
        "labels_topic": "vision_msgs/msg/LabelInfo",
    }
    published = {
        row.name.replace("~", "/perception/mfuser"): row.type
        for row in interface.expanded(interface.PUBLISHED, ["front"])
    }
    for key, kind in kinds.items():
        (topic,) = find(blocks, key)
        assert published[topic] == kind
    assert find(blocks, "contacts")[-1]["topic"] == "/perception/mfuser/drivable_area/contacts"


def test_semantic_layer_lists_every_class_once(blocks):
    (camera,) = (entry for entry in find(blocks, "camera") if isinstance(entry, dict))

    listed = [name for kind in camera["class_types"] for name in camera[kind]["classes"]]

    assert sorted(listed) == sorted([*vocabulary.load().names, "unlabeled"])


def test_contacts_pass_the_heights_of_the_obstacle_layer(blocks):
    (source,) = (entry for entry in find(blocks, "contacts") if isinstance(entry, dict))
    (height,) = (row.default for row in rows(["front"]) if row.name == "contacts_height")

    assert source["min_obstacle_height"] < height < source["max_obstacle_height"]


def test_parameters_of_the_node_in_the_recipes_can_be_used(text, blocks):
    (of_node,) = (found for block in blocks for found in find(block, "ros__parameters") if "autoware_mask" in found)
    known = {row.name for row in rows(["front"])}

    assert set(of_node) <= known
    assert settings(of_node).autoware_mask
    for name in re.findall(r"`((?:grid|ground|front|grid_transient)[._][a-z_]+)(?::[^`]*)?`", text):
        assert name in known, name


def test_autoware_recipe_says_the_ids_that_the_mask_has(text):
    from mfuser_ros.node.autoware import CLASSES, class_table

    words = vocabulary.load()
    table = class_table(words)
    (sentence,) = re.findall(r"holds its ids already: ([^|]*)", text)
    said = {}
    for part in sentence.replace(" and ", ", ").split(", "):
        name, _, number = part.strip().rpartition(" ")
        names = [name] if number.isdigit() else [part.strip()]
        said.update(dict.fromkeys(names, int(number) if number.isdigit() else None))
    names, number = list(said), None
    for name in reversed(names):  # "fence and pole 3": a name without a number has that of the next
        number = said[name] if said[name] is not None else number
        said[name] = number

    assert said.pop("unknown") == CLASSES.index("UNKNOWN")
    assert said == {entry.name: int(table[entry.id]) for entry in words.classes}
