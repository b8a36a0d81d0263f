"""The table of topics and services is what the node makes, no more and no less."""

from __future__ import annotations

import dataclasses

import pytest
from stand_in import StandIn

from mfuser_ros.node import interface


def global_name(row: interface.Topic | interface.Service) -> str:
    name = row.name.replace("<odometry_topic>", "odom")
    return name if name.startswith("/") else "/mfuser" + name[1:] if name.startswith("~") else f"/{name}"


@pytest.fixture(scope="module")
def node(ros):
    """A configured and active node with everything that parameters can turn on."""
    from rclpy.parameter import Parameter

    from mfuser_ros.node.node import MFuserNode

    context = ros.Context()
    ros.init(context=context)
    values = {
        "cameras": ["front", "left"],
        "left.transport": "compressed",
        "autoware_mask": True,
        "odometry_topic": "odom",
        "use_sim_time": True,
        "autostart": False,
    }
    node = MFuserNode(
        load=lambda settings: StandIn(),
        context=context,
        parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
    )
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node.destroy_node()
    context.try_shutdown()


def is_installed(row: interface.Topic) -> bool:
    from mfuser_ros.node.topics import message_class

    try:
        message_class(row.type)
    except ImportError:
        return False
    return True


def kind(row: interface.Topic) -> str:
    stamped = dataclasses.replace(row, type=row.stamped_type)
    return row.stamped_type if row.stamped_type and is_installed(stamped) else row.type


def test_node_publishes_what_the_table_says(node):
    rows = interface.expanded(interface.PUBLISHED + interface.OF_EVERY_NODE, ["front", "left"])

    made = dict(node.get_publisher_names_and_types_by_node("mfuser", "/"))

    assert made == {global_name(row): [kind(row)] for row in rows if not row.optional or is_installed(row)}


def test_node_subscribes_to_what_the_table_says(node):
    rows = [interface.IMAGE.named("front"), interface.COMPRESSED_IMAGE.named("left"), interface.ODOMETRY]
    rows += [interface.CAMERA_INFO_IN.named(camera) for camera in ("front", "left")]
    rows += [interface.CLOCK, *(row for row in (interface.TF, interface.TF_STATIC) if is_installed(row))]

    made = dict(node.get_subscriber_names_and_types_by_node("mfuser", "/"))

    made.pop("/parameter_events", None)  # rclpy's time source of older releases listens to it
    assert made == {global_name(row): [row.type] for row in rows}
    assert {row.name for row in rows} <= {
        row.name for row in interface.expanded(interface.SUBSCRIBED, ["front", "left"])
    }


def test_node_offers_the_services_of_the_table(node):
    made = dict(node.get_service_names_and_types_by_node("mfuser", "/"))

    assert made == {global_name(row): [row.type] for row in interface.SERVICES}


def test_every_row_has_a_profile_that_exists():
    from mfuser_ros.node import qos

    for row in interface.PUBLISHED + interface.SUBSCRIBED:
        assert row.profile == "ros" or qos.PROFILES[row.profile]() is not qos.PROFILES[row.profile](), row.name


def test_tables_have_a_line_for_every_topic():
    for topics in (interface.PUBLISHED, interface.SUBSCRIBED):
        header, rule, *lines = interface.markdown_table(topics, "publishes").splitlines()

        assert [line.split("`")[1] for line in lines] == [row.name for row in topics]
        assert {line.count("|") for line in (header, rule, *lines)} == {5}
