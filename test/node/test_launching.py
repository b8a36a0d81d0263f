"""The launch file: its arguments, what they do, and that RViz shows what the node publishes."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.node import interface
from mfuser_ros.node.launching import (
    arguments,
    cameras,
    is_true,
    node_parameters,
    remappings,
    rviz_configuration,
)
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

    assert cameras(given(params_file=str(file))) == ["left", "right"]
    assert cameras(given()) == ["front"]
    assert node_parameters(given(params_file=str(file), image_topic="/l")) == {
        "left.image_topic": "/l",
        "use_sim_time": False,
    }


def test_lists_give_every_camera_its_own():
    parameters = node_parameters(
        given(
            cameras="[left, right]",
            image_topic="[/l/image_raw, /r/image_raw]",
            transport="[raw, compressed]",
            pose="[[0, 1, 1.5, -1.57, 0, 0], [0, -1, 1.5, -1.57, 0, 3.14]]",
        )
    )

    assert parameters["left.image_topic"] == "/l/image_raw"
    assert parameters["right.image_topic"] == "/r/image_raw"
    assert (parameters["left.transport"], parameters["right.transport"]) == ("raw", "compressed")
    assert parameters["left.pose"] == [0.0, 1.0, 1.5, -1.57, 0.0, 0.0]
    assert parameters["right.pose"] == [0.0, -1.0, 1.5, -1.57, 0.0, 3.14]


def test_remappings_are_pairs_of_names():
    assert remappings("") == []
    assert remappings("mfuser/class_map:=/classes") == [("mfuser/class_map", "/classes")]
    assert remappings("[a:=b, c:=/d]") == [("a", "b"), ("c", "/d")]
    with pytest.raises(ConfigurationError, match="from:=to"):
        remappings("[a, b]")


def test_bag_brings_its_clock():
    assert node_parameters(given(bag="/some/bag"))["use_sim_time"] is True


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"pose": "[0, 0, high]"}, "pose is '[0, 0, high]'"),
        ({"use_sim_time": "maybe"}, "'maybe' is no truth value"),
        ({"params_file": "/nowhere.yaml"}, "/nowhere.yaml: cannot be read"),
        ({"cameras": "[a"}, "cameras is '[a'"),
        ({"cameras": "[a, b, c]", "image_topic": "[/a, /b]"}, "image_topic has 2 entries for 3 cameras"),
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
    assert imported == {"launch", "launch_ros", "mfuser_ros", "pathlib", "tempfile"}


def words(context, parts) -> list[str]:
    from launch.utilities import perform_substitutions

    return [perform_substitutions(context, list(part)) for part in parts]


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
    context.launch_configurations |= {
        "rviz": "true",
        "bag": str(tmp_path),
        "cameras": "[left, right]",
        "namespace": "/car",
        "remap": "[a:=/b]",
        "respawn": "true",
        "enclave": "/car/mfuser",
    }
    (function,) = (entity for entity in entities if isinstance(entity, OpaqueFunction))
    started = function.execute(context)
    assert [type(entity) for entity in started if isinstance(entity, ExecuteProcess)] == [Node, Node, ExecuteProcess]
    node, rviz = (entity for entity in started if isinstance(entity, Node))
    assert (node.node_package, node.node_executable) == ("mfuser_ros", "segment")
    assert words(context, node.cmd[1:6]) == ["--ros-args", "--log-level", "info", "--enclave", "/car/mfuser"]
    option, file = words(context, rviz.cmd[1:3])
    assert option == "-d"
    assert "/car/mfuser/left/overlay" in Path(file).read_text()


def test_fast_dds_profile_holds_a_full_hd_picture_in_one_message():
    from xml.etree import ElementTree

    root = ElementTree.parse(REPOSITORY / "config" / "fastdds_shm.xml").getroot()
    sizes = {element.tag.rpartition("}")[2]: element.text for element in root.iter()}

    assert int(sizes["maxMessageSize"]) >= 1920 * 1080 * 3
    assert int(sizes["segment_size"]) >= 4 * int(sizes["maxMessageSize"])


RVIZ_TYPES = {
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/Camera": "sensor_msgs/msg/Image",
    "rviz_default_plugins/Map": "nav_msgs/msg/OccupancyGrid",
    "rviz_default_plugins/Polygon": "geometry_msgs/msg/PolygonStamped",
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
}
"""What each display subscribes to, from plugins_description.xml of rviz_default_plugins."""


def displays(text: str) -> dict[str, dict]:
    return {display["Name"]: display for display in yaml.safe_load(text)["Visualization Manager"]["Displays"]}


@pytest.fixture(scope="module")
def rviz_text() -> str:
    return (REPOSITORY / "config" / "rviz" / "segment.rviz").read_text()


def global_rows(namespace: str, names: list[str]) -> dict[str, interface.Topic]:
    rows = interface.expanded(interface.PUBLISHED, names)
    return {row.name.replace("~", f"{namespace}/mfuser"): row for row in rows}


def check_displays(text: str, namespace: str, names: list[str]) -> None:
    """Every topic that RViz asks for is one of the node's, of the type that the display takes."""
    published = global_rows(namespace, names)
    shown = [display for display in displays(text).values() if "Topic" in display]
    assert len(shown) >= 6
    for display in shown:
        assert published[display["Topic"]["Value"]].type == RVIZ_TYPES[display["Class"]], display["Name"]


def test_rviz_shows_topics_that_the_node_publishes(rviz_text):
    check_displays(rviz_text, "/perception", ["front"])

    classes = {name: display["Class"].rpartition("/")[2] for name, display in displays(rviz_text).items()}
    assert (
        classes
        | {
            "Overlay": "Image",
            "Camera": "Camera",
            "Drivable area": "Map",
            "Contacts": "PointCloud2",
            "Boundary": "Polygon",
            "TF": "TF",
        }
        == classes
    )
    content = yaml.safe_load(rviz_text)
    assert content["Visualization Manager"]["Global Options"]["Fixed Frame"] == "base_link"


def test_rviz_of_a_camera_finds_its_camera_info_beside_the_picture(rviz_text):
    base, _, _ = displays(rviz_text)["Camera"]["Topic"]["Value"].rpartition("/")

    assert global_rows("/perception", ["front"])[f"{base}/camera_info"].type == "sensor_msgs/msg/CameraInfo"


def test_rviz_asks_for_a_qos_that_the_node_offers(rviz_text):
    """A reader gets nothing from a writer that offers less; history comes only to a reader that is transient local."""
    qos = pytest.importorskip("mfuser_ros.node.qos", reason="QoS profiles come with rclpy, and there is none")
    from rclpy.qos import (
        DurabilityPolicy,
        LivelinessPolicy,
        QoSCompatibility,
        QoSProfile,
        ReliabilityPolicy,
        qos_check_compatible,
    )

    published = global_rows("/perception", ["front"])
    for display in displays(rviz_text).values():
        if "Topic" not in display:
            continue
        offered = qos.PROFILES[published[display["Topic"]["Value"]].profile]()
        asked = QoSProfile(
            depth=display["Topic"]["Depth"],
            reliability=ReliabilityPolicy[display["Topic"]["Reliability Policy"].upper().replace(" ", "_")],
            durability=DurabilityPolicy[display["Topic"]["Durability Policy"].upper().replace(" ", "_")],
            liveliness=LivelinessPolicy.AUTOMATIC,  # left open, it makes the answer a warning
        )
        offered.liveliness = LivelinessPolicy.AUTOMATIC
        assert qos_check_compatible(offered, asked)[0] == QoSCompatibility.OK, display["Name"]
        if offered.durability == DurabilityPolicy.TRANSIENT_LOCAL:
            assert asked.durability == DurabilityPolicy.TRANSIENT_LOCAL, display["Name"]


def test_rviz_is_fitted_to_other_cameras_and_another_namespace(rviz_text):
    text = rviz_configuration(rviz_text, namespace="/car/eyes", cameras=["left", "right"])

    check_displays(text, "/car/eyes", ["left", "right"])
    shown = displays(text)
    assert shown["Overlay left"]["Topic"]["Value"] == "/car/eyes/mfuser/left/overlay"
    assert shown["Overlay right"]["Topic"]["Value"] == "/car/eyes/mfuser/right/overlay"
    assert shown["Drivable area"]["Topic"]["Value"] == "/car/eyes/mfuser/drivable_area/grid"
    assert shown["TF"] == displays(rviz_text)["TF"]


@pytest.mark.parametrize("namespace", ["", "/"])
def test_rviz_of_a_node_without_namespace(rviz_text, namespace):
    text = rviz_configuration(rviz_text, namespace=namespace, cameras=["front"])

    check_displays(text, "", ["front"])
    assert displays(text)["Overlay"]["Topic"]["Value"] == "/mfuser/front/overlay"
