"""Starts the node and, on request, RViz and a bag. `ros2 launch mfuser_ros segment.launch.py --show-args` explains."""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from mfuser_ros import share
from mfuser_ros.node.launching import arguments, is_true, node_parameters


def processes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """What runs, now that the arguments are known."""
    values = {name: LaunchConfiguration(name).perform(context) for name in arguments()}
    parameters = node_parameters(values)
    actions: list[LaunchDescriptionEntity] = []
    if values["fastdds_profile"]:
        actions.append(SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", values["fastdds_profile"]))
    actions.append(
        Node(
            package="mfuser_ros",
            executable="segment",
            name="mfuser",
            namespace=values["namespace"],
            output="screen",
            parameters=[values["params_file"], parameters],
            arguments=["--ros-args", "--log-level", values["log_level"]],
        )
    )
    if is_true(values["rviz"]):
        actions.append(
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", str(share.find("config/rviz/segment.rviz"))],
                parameters=[{"use_sim_time": parameters["use_sim_time"]}],
            )
        )
    if values["bag"]:
        play = ["ros2", "bag", "play", values["bag"], "--clock", "100"]
        actions.append(ExecuteProcess(cmd=play, output="screen"))
    return actions


def generate_launch_description() -> LaunchDescription:
    """The arguments with their descriptions, then what they start."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in arguments().items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=processes)])
