"""The table of parameters: one source for declaration, YAML file and documentation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.node.parameters import NODE, PER_CAMERA, markdown_table, rows, yaml_text
from mfuser_ros.node.settings import camera_names, settings

REPOSITORY = Path(__file__).resolve().parents[2]


def test_shipped_file_is_what_the_table_says():
    assert (REPOSITORY / "config" / "segment.param.yaml").read_text() == yaml_text(), (
        "write it again: python -c \"from mfuser_ros.node.parameters import yaml_text; print(yaml_text(), end='')\""
    )


def test_shipped_file_holds_every_parameter_at_its_default():
    values = yaml.safe_load(yaml_text())["/**"]["ros__parameters"]

    optional = {row.name for row in rows(["front"]) if row.default is None}
    assert set(values) | optional == {row.name for row in rows(["front"])}
    assert optional == {"front.pose", "front.roi"}
    assert settings(values) == settings({})


def test_doubles_of_the_shipped_file_are_doubles():
    """Without a point they would be integers to rclpy, and refused by nodes that check types."""
    values = yaml.safe_load(yaml_text())["/**"]["ros__parameters"]

    for row in rows(["front"]):
        if row.type == "double":
            assert isinstance(values[row.name], float), row.name


def test_markdown_table_has_a_row_of_equal_width_for_each_parameter():
    header, rule, *lines = markdown_table().splitlines()

    assert [line.split("`")[1] for line in lines] == [row.name for row in PER_CAMERA + NODE]
    assert {line.count("|") for line in (header, rule, *lines)} == {7}


def test_defaults_are_those_of_the_specification():
    found = settings({})

    assert [camera.name for camera in found.cameras] == ["front"]
    assert found.cameras[0].image_topic == "front/image_raw"
    assert found.cameras[0].pose is None
    assert found.input_size is None
    assert found.threshold is None
    assert (found.max_rate, found.max_age, found.overlay_rate, found.overlay_alpha) == (0, 0.5, 5, 0.5)
    assert (found.grid_x_min, found.grid_x_max, found.grid_y_min, found.grid_y_max) == (-5, 40, -15, 15)
    assert (found.diagnostics_warn_latency, found.diagnostics_error_latency) == (0.3, 1.0)


def test_whole_number_does_for_a_double():
    found = settings({"max_rate": 10, "front.pose": [0, 0, 2, -1.5, 0, -1.5]})

    assert isinstance(found.max_rate, float)
    assert found.cameras[0].pose == (0.0, 0.0, 2.0, -1.5, 0.0, -1.5)


def test_each_camera_has_its_own_parameters():
    found = settings({"cameras": ["front", "rear"], "rear.transport": "compressed"})

    assert [camera.image_topic for camera in found.cameras] == ["front/image_raw", "rear/image_raw"]
    assert [camera.transport for camera in found.cameras] == ["raw", "compressed"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"max_rate": 121.0}, "max_rate is 121: give 0 to 120"),
        ({"max_rate": math.nan}, "max_rate is nan: give a finite number"),
        ({"max_rate": "fast"}, "max_rate is 'fast': give a double"),
        ({"max_rate": True}, "max_rate is True: give a double"),
        ({"grid.enabled": 1}, "grid.enabled is 1: give a bool"),
        ({"threshold": -0.5}, "threshold is -0.5: give 0 to 1, or -1"),
        ({"threshold": 1.5}, "threshold is 1.5: give -1 to 1"),
        ({"precision": "int8"}, "precision is 'int8': choose one of auto, float32"),
        ({"device": "tpu"}, "device is 'tpu': choose auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, "device is 'cuda:x'"),
        ({"input_size": [32, 64]}, "input_size is [32, 64]: give two sides of 64 or more"),
        ({"input_size": [64]}, "input_size has 1 elements: give 2"),
        ({"input_size": [64.0, 64.0]}, "input_size is 64.0: give a int"),
        ({"free_roles": ["drivable", "sky"]}, "free_roles is 'sky': choose one of drivable, walkable, ground"),
        ({"free_roles": []}, "free_roles has 0 elements: give 1 to 3"),
        ({"free_roles": "drivable"}, "free_roles is 'drivable': give a list"),
        ({"front.pose": [0.0] * 5}, "front.pose has 5 elements: give 6"),
        ({"front.pose": [0.0, 0.0, math.inf, 0.0, 0.0, 0.0]}, "front.pose is inf: give a finite number"),
        ({"front.pose": [0.0, 0.0, 1.5, 0.0, 0.0, 0.0]}, "front.pose points the optical axis straight up"),
        ({"front.pose": [0.0, 0.0, -1.0, -1.57, 0.0, -1.57]}, "front.pose puts the camera at z = -1 m"),
        ({"front.transport": "theora"}, "front.transport is 'theora': choose one of raw, compressed"),
        ({"front.image_topic": ""}, "front.image_topic is empty"),
        ({"grid.frame": ""}, "grid.frame is empty"),
        ({"cameras": []}, "cameras has 0 elements: give 1 to 8"),
        ({"cameras": [f"c{index}" for index in range(9)]}, "cameras has 9 elements"),
        ({"cameras": ["front", "front"]}, "cameras holds a name twice"),
        ({"cameras": ["2nd"]}, "cameras holds '2nd'"),
        ({"cameras": ["grid"]}, "cameras holds 'grid'"),
        ({"cameras": ["vorne_ü"]}, "cameras holds 'vorne_ü'"),
    ],
)
def test_value_that_cannot_work_is_named(values, text):
    with pytest.raises(ConfigurationError) as caught:
        settings(values)

    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unset_value_is_the_default():
    assert camera_names(None) == ("front",)
    assert settings({"free_roles": None}).free_roles == ("drivable",)
