"""Starts the node and, on request, RViz and a bag. `ros2 launch mfuser_ros segment.launch.py --show-args` explains."""

import tempfile
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from mfuser_ros import share
from mfuser_ros.node import launching

RESPAWN_DELAY_S = 2.0


def processes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """What runs, now that the arguments are known."""
    values = {name: LaunchConfiguration(name).perform(context) for name in launching.arguments()}
    parameters = launching.node_parameters(values)
    actions: list[LaunchDescriptionEntity] = []
    if values["fastdds_profile"]:
        actions.append(SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", values["fastdds_profile"]))
    enclave = ["--enclave", values["enclave"]] if values["enclave"] else []
    actions.append(
        Node(
            package="mfuser_ros",
            executable="segment",
            name="mfuser",
            namespace=values["namespace"],
            output="screen",
            parameters=[values["params_file"], parameters],
            remappings=launching.remappings(values["remap"]),
            arguments=["--ros-args", "--log-level", values["log_level"], *enclave],
            respawn=launching.is_true(values["respawn"]),
            respawn_delay=RESPAWN_DELAY_S,
        )
    )
    if launching.is_true(values["rviz"]):
        actions.append(
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", _rviz_file(values)],
                parameters=[{"use_sim_time": parameters["use_sim_time"]}],
            )
        )
    if values["bag"]:
        play = ["ros2", "bag", "play", values["bag"], "--clock", "100"]
        actions.append(ExecuteProcess(cmd=play, output="screen"))
    return actions


def _rviz_file(values: dict[str, str]) -> str:
    """A file of its own for RViz, which writes into the file that it was started with."""
    template = share.find("config/rviz/segment.rviz").read_text(encoding="utf-8")
    text = launching.rviz_configuration(template, namespace=values["namespace"], cameras=launching.cameras(values))
    file = Path(tempfile.mkdtemp(prefix="mfuser_rviz_")) / "segment.rviz"
    file.write_text(text, encoding="utf-8")
    return str(file)


def generate_launch_description() -> LaunchDescription:
    """The arguments with their descriptions, then what they start."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in launching.arguments().items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=processes)])
