"""Arguments of launch/segment.launch.py and what they mean for the node; needs neither ROS nor launch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from mfuser_ros import share
from mfuser_ros.errors import ConfigurationError


def arguments() -> dict[str, tuple[str, str]]:
    """Default and description of every launch argument, by name.

    Raises:
        ConfigurationError: the package is installed without its configuration.
    """
    from_file = "; empty: as in params_file."
    return {
        "params_file": (str(share.find("config/segment.param.yaml")), "Parameter file of the node."),
        "namespace": ("/perception", "Namespace of the node."),
        "use_sim_time": ("false", "Take the time from /clock; a bag brings its own clock."),
        "cameras": ("", "Names of the cameras, such as [front, left]" + from_file),
        "image_topic": ("", "Image topic of the first camera" + from_file),
        "transport": ("", "raw or compressed, of the first camera" + from_file),
        "pose": ("", "Pose of the first camera, [x, y, z, roll, pitch, yaw] in metres and radians" + from_file),
        "model": ("", "A name in models/ or the path of a .safetensors file" + from_file),
        "device": ("", "auto, cpu, cuda or cuda:N" + from_file),
        "vocabulary": ("", "Path of a vocabulary YAML" + from_file),
        "log_level": ("info", "debug, info, warn, error or fatal."),
        "rviz": ("false", "Show overlay, mask, grid, boundary and contacts in RViz."),
        "bag": ("", "Path of a bag to replay with its clock; empty: none."),
        "fastdds_profile": (
            str(share.find("config/fastdds_shm.xml")),
            "Fast DDS profile that lets a picture through in one piece; empty: the middleware's defaults.",
        ),
    }


def is_true(text: str) -> bool:
    """Whether a launch argument says yes.

    Raises:
        ConfigurationError: it says neither true nor false.
    """
    value = yaml.safe_load(text.lower())
    if value in (True, False):
        return bool(value)
    raise ConfigurationError(f"'{text}' is no truth value: give true or false")


def node_parameters(values: Mapping[str, str]) -> dict[str, object]:
    """Parameters that override those of the file, from the arguments that were given.

    Args:
        values: text of every launch argument, by name.

    Raises:
        ConfigurationError: an argument or the parameter file cannot be read.
    """
    parameters: dict[str, object] = {name: values[name] for name in ("model", "device", "vocabulary") if values[name]}
    cameras = _listed("cameras", values["cameras"])
    if cameras:
        parameters["cameras"] = [str(name) for name in cameras]
    first = str(cameras[0]) if cameras else first_camera(Path(values["params_file"]))
    parameters |= {f"{first}.{name}": values[name] for name in ("image_topic", "transport") if values[name]}
    if values["pose"]:
        try:
            parameters[f"{first}.pose"] = [float(str(number)) for number in _listed("pose", values["pose"])]
        except ValueError as error:
            raise ConfigurationError(f"pose is '{values['pose']}': give [x, y, z, roll, pitch, yaw]") from error
    parameters["use_sim_time"] = bool(values["bag"]) or is_true(values["use_sim_time"])
    return parameters


def first_camera(params_file: Path) -> str:
    """Name of the first camera in a parameter file; `front` where it names none.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        content = yaml.safe_load(params_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{params_file}: cannot be read ({reason}): give a ROS parameter file") from error
    for entry in (content or {}).values():
        cameras = entry.get("ros__parameters", {}).get("cameras")
        if cameras:
            return str(cameras[0])
    return "front"


def _listed(name: str, text: str) -> list[object]:
    """The elements of a YAML list, or the one element that stands without brackets."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{name} is '{text}': give a list such as [a, b]") from error
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
