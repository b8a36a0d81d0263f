"""The SROS 2 policy grants what the node makes: all of it, by name, and nothing more."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from mfuser_ros.node import interface, policy
from mfuser_ros.node.settings import settings

REPOSITORY = Path(__file__).resolve().parents[2]
FULL = {
    "cameras": ["front", "left"],
    "left.transport": "compressed",
    "left.image_topic": "/sensors/left/image_rect",
    "autoware_mask": True,
    "odometry_topic": "odom",
    "grid.decay": 1.0,
}


def granted(text: str) -> dict[tuple[str, str], list[str]]:
    """Names by kind and right, such as (topic, publish), as written."""
    (profile,) = ElementTree.fromstring(text.partition("?>")[2]).iter("profile")
    return {
        (group.tag[:-1], right): [str(entry.text) for entry in group]
        for group in profile
        for right, word in group.attrib.items()
        if word == "ALLOW"
    }


def resolved(name: str, namespace: str = "/perception") -> str:
    """As sros2's permissions.xsl resolves names: / global, ~ of the node, else of the namespace."""
    if name.startswith("/"):
        return name
    return f"{namespace}/mfuser{name[1:]}" if name.startswith("~") else f"{namespace}/{name}"


def test_shipped_policy_is_the_one_that_the_table_makes():
    file = REPOSITORY / "config" / "security" / "policy.xml"

    assert file.read_text() == policy.policy_xml(
        policy.read_settings(REPOSITORY / "config" / "segment.param.yaml"), namespace="/perception"
    ), "run `make docs`"


def test_policy_has_the_form_of_the_sros2_schema():
    root = ElementTree.fromstring(policy.policy_xml(settings({}), namespace="/perception/").partition("?>")[2])

    assert (root.tag, root.attrib) == ("policy", {"version": "0.2.0"})
    (context,) = root.findall("contexts/context")
    assert context.attrib == {"path": "/perception/mfuser"}
    (profile,) = context.findall("profiles/profile")
    assert profile.attrib == {"ns": "/perception", "node": "mfuser"}
    assert [group.tag for group in profile] == ["topics", "topics", "services"]
    for group in profile:
        assert len(group) > 0
        assert {entry.tag for entry in group} == {group.tag[:-1]}
        assert len({entry.text for entry in group}) == len(group)


def test_every_row_of_the_table_is_granted_and_no_wildcard():
    found = granted(policy.policy_xml(settings(FULL), namespace="/perception"))

    rows = interface.expanded((*interface.PUBLISHED, *interface.OF_EVERY_NODE), ["front", "left"])
    assert found["topic", "publish"] == [row.name for row in rows]
    assert found["service", "reply"] == [service.name for service in interface.SERVICES]
    assert ("service", "request") not in found
    assert set(found["topic", "subscribe"]) == {
        "front/image_raw",
        "front/camera_info",
        "/sensors/left/image_rect/compressed",
        "/sensors/left/camera_info",
        "odom",
        "/tf",
        "/tf_static",
        "/clock",
        "/parameter_events",
    }
    assert not any("*" in name for names in found.values() for name in names)


def test_topics_that_parameters_turn_off_are_not_granted():
    found = granted(policy.policy_xml(settings({"pose_source": "parameter"}), namespace="/perception"))

    assert not any("mask_rle" in name for name in found["topic", "publish"])
    assert set(found["topic", "subscribe"]) == {
        "front/image_raw", "front/camera_info", "/clock", "/parameter_events"
    }  # fmt: skip


@pytest.mark.parametrize("namespace", ["", "/"])
def test_node_without_a_namespace_has_the_root(namespace):
    text = policy.policy_xml(settings({}), namespace=namespace)

    assert 'path="/mfuser"' in text
    assert '<profile ns="/" node="mfuser">' in text


def test_command_reads_a_parameter_file_and_prints_the_policy(tmp_path, capsys):
    file = tmp_path / "car.yaml"
    file.write_text("/**:\n  ros__parameters:\n    cameras: [rear]\n    rear: {image_topic: /rear/image_raw}\n")

    assert policy.main(["--params-file", str(file), "--namespace", "/car"]) == 0

    found = granted(capsys.readouterr().out)
    assert "/rear/image_raw" in found["topic", "subscribe"]
    assert "~/rear/mask" in found["topic", "publish"]


def test_command_names_a_file_that_cannot_be_used(tmp_path, capsys):
    file = tmp_path / "car.yaml"
    file.write_text("/**:\n  ros__parameters:\n    max_rate: 1000.0\n")

    assert policy.main(["--params-file", str(file)]) == 2
    assert "max_rate is 1000" in capsys.readouterr().err


def test_running_node_needs_nothing_that_is_not_granted_and_uses_what_is(graph):
    from rclpy.parameter import Parameter
    from stand_in import StandIn

    from mfuser_ros.node.node import MFuserNode

    node = MFuserNode(
        load=lambda settings: StandIn(),
        context=graph.context,
        namespace="/perception",
        parameter_overrides=[Parameter(name, value=value) for name, value in (FULL | {"autostart": False}).items()],
    )
    try:
        node.trigger_configure()
        node.trigger_activate()
        made = {
            ("topic", "publish"): node.get_publisher_names_and_types_by_node("mfuser", "/perception"),
            ("topic", "subscribe"): node.get_subscriber_names_and_types_by_node("mfuser", "/perception"),
            ("service", "reply"): node.get_service_names_and_types_by_node("mfuser", "/perception"),
        }
    finally:
        node.destroy_node()

    found = granted(policy.policy_xml(settings(FULL), namespace="/perception"))
    # not made without tf2_ros, vision_msgs and use_sim_time, nor by every release of rclpy
    optional = {"/tf", "/tf_static", "/clock", "/parameter_events", "/perception/mfuser/label_info"}
    for right, names in made.items():
        may, does = {resolved(name) for name in found[right]}, {name for name, _ in names}
        assert len(does) > 3
        assert does <= may, right
        assert may - does <= optional, right
