"""What `launch/segment.launch.py` asks for, and what follows for the node and RViz. Needs neither launch nor ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from mfuser_ros import share
from mfuser_ros.errors import ConfigurationError

PER_CAMERA = ("image_topic", "transport", "pose")
RVIZ_TOPICS = "/perception/mfuser/"
"""Where the topics of the shipped RViz configuration begin."""


def arguments() -> dict[str, tuple[str, str]]:
    """Default and description of every launch argument, by name.

    Raises:
        ConfigurationError: the package is installed without its configuration.
    """
    from_file = "; empty: as in params_file."
    each = " A list has one for each camera, a single one is the first camera's"
    return {
        "params_file": (str(share.find("config/segment.param.yaml")), "Parameter file of the node."),
        "namespace": ("/perception", "Namespace of the node."),
        "use_sim_time": ("false", "Take the time from /clock; a bag brings its own clock."),
        "cameras": ("", "Names of the cameras, such as [front, left]" + from_file),
        "image_topic": ("", f"Image topic, such as /cam/image_raw or [/a/image_raw, /b/image_raw].{each}{from_file}"),
        "transport": ("", f"raw or compressed.{each}{from_file}"),
        "pose": ("", f"Pose, [x, y, z, roll, pitch, yaw] in metres and radians.{each}{from_file}"),
        "model": ("", "A name in models/ or the path of a .safetensors file" + from_file),
        "device": ("", "auto, cpu, cuda or cuda:N" + from_file),
        "vocabulary": ("", "Path of a vocabulary YAML" + from_file),
        "remap": ("", "Topics that get other names, such as [mfuser/drivable_area/grid:=/free_space]; empty: none."),
        "log_level": ("info", "debug, info, warn, error or fatal."),
        "respawn": ("false", "Start the node again when its process ends with a fault."),
        "enclave": ("", "SROS 2 enclave of the node, such as /perception/mfuser; empty: launch's own."),
        "rviz": ("false", "Show overlay, camera, grid, boundary, contacts and TF in RViz."),
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


def cameras(values: Mapping[str, str]) -> list[str]:
    """Names of the cameras, from the argument or the parameter file; `front` where neither names one.

    Args:
        values: text of every launch argument, by name.

    Raises:
        ConfigurationError: the argument or the parameter file cannot be read.
    """
    return [str(name) for name in _listed("cameras", values["cameras"])] or _cameras_of(Path(values["params_file"]))


def node_parameters(values: Mapping[str, str]) -> dict[str, object]:
    """Parameters that override those of the file, from the arguments that were given.

    Args:
        values: text of every launch argument, by name.

    Raises:
        ConfigurationError: an argument or the parameter file cannot be read.
    """
    parameters: dict[str, object] = {name: values[name] for name in ("model", "device", "vocabulary") if values[name]}
    names = cameras(values)
    if values["cameras"]:
        parameters["cameras"] = names
    for argument in PER_CAMERA:
        for name, value in zip(names, _for_each_camera(argument, values[argument], names), strict=False):
            parameters[f"{name}.{argument}"] = value
    parameters["use_sim_time"] = bool(values["bag"]) or is_true(values["use_sim_time"])
    return parameters


def remappings(text: str) -> list[tuple[str, str]]:
    """Pairs of names, from and to, of the argument `remap`.

    Raises:
        ConfigurationError: a pair without `:=`.
    """
    pairs = [str(entry).partition(":=") for entry in _listed("remap", text)]
    for before, sign, after in pairs:
        if not (before and sign and after):
            raise ConfigurationError(f"remap is '{text}': give a list such as [from:=to, other:=/another]")
    return [(before, after) for before, _, after in pairs]


def rviz_configuration(template: str, *, namespace: str, cameras: Sequence[str]) -> str:
    """The shipped RViz configuration for another namespace and other cameras.

    Args:
        template: text of config/rviz/segment.rviz, which shows /perception/mfuser and its camera front.
        namespace: of the node.
        cameras: their names; displays of the camera front are made once for each.
    """
    content = yaml.safe_load(template)
    manager = content["Visualization Manager"]
    displays: list[dict[str, Any]] = []  # Any: what RViz keeps in its file
    for display in manager["Displays"]:
        topic = str(display.get("Topic", {}).get("Value", ""))
        of_camera = topic.startswith(f"{RVIZ_TOPICS}front/")
        for camera in cameras if of_camera else ("",):
            copy = deepcopy(display)
            if topic:
                copy["Topic"]["Value"] = _renamed(topic, namespace, camera)
            if of_camera and len(cameras) > 1:
                copy["Name"] = f"{display['Name']} {camera}"
            displays.append(copy)
    manager["Displays"] = displays
    return yaml.safe_dump(content, sort_keys=False)


def _renamed(topic: str, namespace: str, camera: str) -> str:
    rest = topic.removeprefix(RVIZ_TOPICS)
    if rest == topic:
        return topic
    if camera:
        rest = rest.replace("front", camera, 1)
    return f"/{namespace.strip('/')}/mfuser/{rest}".replace("//", "/")


def _for_each_camera(argument: str, text: str, names: Sequence[str]) -> list[object]:
    """Values for the first cameras; one that stands alone is the first camera's."""
    entries = _listed(argument, text)
    if argument == "pose" and entries and not isinstance(entries[0], list):
        entries = [entries]
    if len(entries) > 1 and len(entries) != len(names):
        raise ConfigurationError(f"{argument} has {len(entries)} entries for {len(names)} cameras: give one for each")
    if argument != "pose":
        return [str(entry) for entry in entries]
    try:
        return [[float(str(number)) for number in entry] for entry in entries]  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"pose is '{text}': give [x, y, z, roll, pitch, yaw]") from error


def _cameras_of(params_file: Path) -> list[str]:
    try:
        content = yaml.safe_load(params_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{params_file}: cannot be read ({reason}): give a ROS parameter file") from error
    if content is not None and not isinstance(content, dict):
        raise ConfigurationError(f"{params_file}: is no ROS parameter file: see config/segment.param.yaml for the form")
    for entry in (content or {}).values():
        parameters = entry.get("ros__parameters") if isinstance(entry, dict) else None
        if isinstance(parameters, dict) and parameters.get("cameras"):
            return [str(name) for name in parameters["cameras"]]
    return ["front"]


def _listed(name: str, text: str) -> list[object]:
    """The elements of a YAML list, or the one element that stands without brackets."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{name} is '{text}': give a list such as [a, b]") from error
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
