"""The SROS 2 policy of the node, from the table of its topics and services: `python -m mfuser_ros.node.policy`.

Needs no ROS. What the policy does not name is denied: a policy for a node with other cameras or topics has to be made
with its parameter file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from mfuser_ros import share
from mfuser_ros.errors import ConfigurationError, MFuserError
from mfuser_ros.node import interface
from mfuser_ros.node.settings import Settings, settings

NODE = "mfuser"
VERSION = "0.2.0"
"""Of the policy's schema, sros2/policy/schemas/policy.xsd."""


def policy_xml(chosen: Settings, *, namespace: str) -> str:
    """A policy that grants the node its topics and services, each by name, and nothing else.

    Args:
        chosen: what the parameters say: names of cameras and topics, and which topics there are.
        namespace: of the node, such as /perception.
    """
    namespace = "/" + namespace.strip("/")
    policy = ElementTree.Element("policy", version=VERSION)
    contexts = ElementTree.SubElement(policy, "contexts")
    context = ElementTree.SubElement(contexts, "context", path=f"{namespace.rstrip('/')}/{NODE}")
    profiles = ElementTree.SubElement(context, "profiles")
    profile = ElementTree.SubElement(profiles, "profile", ns=namespace, node=NODE)
    _grant(profile, "topic", "publish", published(chosen))
    _grant(profile, "topic", "subscribe", subscribed(chosen))
    _grant(profile, "service", "reply", (service.name for service in interface.SERVICES))
    ElementTree.indent(policy)
    comment = "Made by `python -m mfuser_ros.node.policy` from the table in mfuser_ros/node/interface.py."
    body = ElementTree.tostring(policy, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- {comment} -->\n{body}\n'


def published(chosen: Settings) -> list[str]:
    """Names of the topics that a node with these settings publishes, as in the table."""
    cameras = [camera.name for camera in chosen.cameras]
    wanted = [row for row in interface.PUBLISHED if row is not interface.MASK_RLE or chosen.autoware_mask]
    return [row.name for row in interface.expanded([*wanted, *interface.OF_EVERY_NODE], cameras)]


def subscribed(chosen: Settings) -> list[str]:
    """Names of the topics that a node with these settings subscribes to."""
    names = []
    for camera in chosen.cameras:
        folder, slash, _ = camera.image_topic.removesuffix("/compressed").rpartition("/")
        names.append(camera.image_topic + ("/compressed" if camera.transport == "compressed" else ""))
        names.append(camera.info_topic or f"{folder}{slash}camera_info")
    if chosen.odometry_topic:
        names.append(chosen.odometry_topic)
    tf = () if chosen.pose_source == "parameter" else (interface.TF.name, interface.TF_STATIC.name)
    # rclpy of Humble listens to changes of parameters for the sake of use_sim_time
    return [*names, *tf, interface.CLOCK.name, "/parameter_events"]


def read_settings(params_file: Path) -> Settings:
    """What a ROS parameter file says, whatever nodes its sections are for.

    Raises:
        ConfigurationError: the file cannot be read, or a value of it cannot work.
    """
    try:
        content = yaml.safe_load(params_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{params_file}: cannot be read ({reason}): give a ROS parameter file") from error
    values: dict[str, object] = {}
    for section in (content if isinstance(content, dict) else {}).values():
        parameters = section.get("ros__parameters") if isinstance(section, dict) else None
        if isinstance(parameters, dict):
            values |= _flat(parameters)
    return settings(values)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:  # Any: what YAML holds
    """Nested names joined by dots, as rcl reads them."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _grant(profile: ElementTree.Element, kind: str, right: str, names: Iterable[str]) -> None:
    group = ElementTree.SubElement(profile, f"{kind}s", {right: "ALLOW"})
    for name in dict.fromkeys(names):
        ElementTree.SubElement(group, kind).text = name


def main(arguments: list[str] | None = None) -> int:
    """Print the policy for a parameter file."""
    parser = argparse.ArgumentParser(prog="python -m mfuser_ros.node.policy", description=main.__doc__)
    parser.add_argument("--params-file", type=Path, default=None, help="of the node; left out: the shipped one")
    parser.add_argument("--namespace", default="/perception", help="of the node")
    given = parser.parse_args(arguments)
    try:
        file = given.params_file or share.find("config/segment.param.yaml")
        print(policy_xml(read_settings(file), namespace=given.namespace), end="")
    except MFuserError as error:
        print(f"mfuser: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
