"""The launch file: its arguments, what they do, and that RViz shows what the node publishes."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.node.launching import arguments, first_camera, is_true, node_parameters
from mfuser_ros.node.parameters import rows

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH_FILE = REPOSITORY / "launch" / "segment.launch.py"


def given(**values: str) -> dict[str, str]:
    """The text of every argument, at its default unless given."""
    return {name: default for name, (default, _) in arguments().items()} | values


def test_defaults_change_nothing_but_say_which_clock():
    assert node_parameters(given()) == {"use_sim_time": False}


def test_arguments_override_the_parameters_of_the_first_camera():
    parameters = node_parameters(
        given(
            cameras="[left, right]",
            image_topic="/cam/image_raw",
            transport="compressed",
            pose="[0, 0, 1.5, -1.57, 0, -1.57]",
            model="small",
            device="cpu",
            use_sim_time="True",
        )
    )

    assert parameters == {
        "cameras": ["left", "right"],
        "left.image_topic": "/cam/image_raw",
        "left.transport": "compressed",
        "left.pose": [0.0, 0.0, 1.5, -1.57, 0.0, -1.57],
        "model": "small",
        "device": "cpu",
        "use_sim_time": True,
    }
    assert set(parameters) - {"use_sim_time"} <= {row.name for row in rows(["left", "right"])}


def test_one_camera_may_stand_without_brackets():
    assert node_parameters(given(cameras="rear", image_topic="/r"))["rear.image_topic"] == "/r"


def test_first_camera_is_that_of_the_parameter_file(tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text("/**:\n  ros__parameters:\n    cameras: [left, right]\n")

    assert first_camera(file) == "left"
    assert node_parameters(given(params_file=str(file), image_topic="/l"))["left.image_topic"] == "/l"
    assert first_camera(REPOSITORY / "config" / "segment.param.yaml") == "front"


def test_bag_brings_its_clock():
    assert node_parameters(given(bag="/some/bag"))["use_sim_time"] is True


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"pose": "[0, 0, high]"}, "pose is '[0, 0, high]'"),
        ({"use_sim_time": "maybe"}, "'maybe' is no truth value"),
        ({"params_file": "/nowhere.yaml"}, "/nowhere.yaml: cannot be read"),
        ({"cameras": "[a"}, "cameras is '[a'"),
    ],
)
def test_argument_that_cannot_work_is_named(values, text):
    with pytest.raises(ConfigurationError, match=re.escape(text)):
        node_parameters(given(**values))


def test_truth_values():
    assert [is_true(text) for text in ("true", "True", "false", "1", "0")] == [True, True, False, True, False]


def test_every_argument_has_a_description_that_is_a_sentence():
    for name, (_, description) in arguments().items():
        assert description.endswith("."), name


def test_launch_file_compiles_and_imports_nothing_heavy():
    source = LAUNCH_FILE.read_text()
    compile(source, str(LAUNCH_FILE), "exec")

    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported == {"launch", "launch_ros", "mfuser_ros"}


def test_launch_description_declares_and_starts_what_the_arguments_say(tmp_path):
    pytest.importorskip("launch.actions", reason="launch comes with a ROS installation, and there is none")
    pytest.importorskip("launch_ros.actions", reason="launch_ros comes with a ROS installation, and there is none")
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
    from launch_ros.actions import Node

    spec = importlib.util.spec_from_file_location("segment_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entities = module.generate_launch_description().entities

    declared = {entity.name: entity for entity in entities if isinstance(entity, DeclareLaunchArgument)}
    assert set(declared) == set(arguments())
    context = LaunchContext()
    for entity in declared.values():
        entity.execute(context)
    context.launch_configurations |= {"rviz": "true", "bag": str(tmp_path)}
    (function,) = (entity for entity in entities if isinstance(entity, OpaqueFunction))
    started = function.execute(context)
    assert [type(entity) for entity in started if isinstance(entity, ExecuteProcess)] == [Node, Node, ExecuteProcess]


def test_fast_dds_profile_holds_a_full_hd_picture_in_one_message():
    from xml.etree import ElementTree

    root = ElementTree.parse(REPOSITORY / "config" / "fastdds_shm.xml").getroot()
    sizes = {element.tag.rpartition("}")[2]: element.text for element in root.iter()}

    assert int(sizes["maxMessageSize"]) >= 1920 * 1080 * 3
    assert int(sizes["segment_size"]) >= 4 * int(sizes["maxMessageSize"])


def test_rviz_shows_latched_grid_and_best_effort_pictures():
    content = yaml.safe_load((REPOSITORY / "config" / "rviz" / "segment.rviz").read_text())
    displays = {display["Name"]: display for display in content["Visualization Manager"]["Displays"]}

    assert displays["Drivable area"]["Topic"]["Durability Policy"] == "Transient Local"
    assert displays["Drivable area"]["Topic"]["Reliability Policy"] == "Reliable"
    assert displays["Overlay"]["Topic"]["Reliability Policy"] == "Best Effort"
    assert content["Visualization Manager"]["Global Options"]["Fixed Frame"] == "base_link"
