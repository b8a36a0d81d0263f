"""A node with the topics of `mfuser` and a rule instead of a network, run as a process by the tests of the player.

The mask of a picture is 0 where its red channel is above 127, else 255. `--die-at N` ends the process with an error
line at frame N, `--silent-at N` keeps the mask of frame N back, `--silent-from N` those of it and of all that follow,
`--mute TOPIC` never publishes `TOPIC`, `--reliable` takes every picture, `--fail` reports a failed configuration and
does nothing else.
"""

import argparse
import array
import sys

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from nav_msgs.msg import OccupancyGrid
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Float64, String

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--die-at", type=int, default=-1)
    parser.add_argument("--silent-at", type=int, default=-1)
    parser.add_argument("--silent-from", type=int, default=sys.maxsize)
    parser.add_argument("--mute", default="")
    parser.add_argument("--reliable", action="store_true")
    parser.add_argument("--fail", action="store_true")
    arguments = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node("mfuser")
    kinds = {
        "front/mask": (Image, 2),
        "front/confidence": (Image, 2),
        "drivable_area/grid": (OccupancyGrid, LATCHED),
        "drivable_area/contacts": (PointCloud2, 2),
        "debug/processing_time_ms": (Float64, 2),
        "class_map": (String, LATCHED),
    }
    publish = {
        name: node.create_publisher(kind, f"/mfuser/{name}", qos).publish
        for name, (kind, qos) in kinds.items()
        if name != arguments.mute
    }
    diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    if arguments.fail:
        error = DiagnosticStatus(
            name="mfuser: front", level=DiagnosticStatus.ERROR, message="configure failed: no weights"
        )
        node.create_timer(0.2, lambda: diagnostics.publish(DiagnosticArray(status=[error])))
        rclpy.spin(node)
    calibrations = []
    frames = []

    def on_image(message) -> None:
        if len(frames) == arguments.die_at:
            sys.stderr.write("stand-in: out of luck at frame 2\n")
            sys.exit(3)
        frames.append(message)
        if len(frames) - 1 == arguments.silent_at or len(frames) - 1 >= arguments.silent_from:
            return
        if isinstance(message, CompressedImage):
            red = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)[..., 2]
        else:
            red = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)[..., 0]
        values = np.where(red > 127, 0, 255).astype(np.uint8)
        mask = Image(
            header=message.header, height=red.shape[0], width=red.shape[1], encoding="mono8", step=red.shape[1]
        )
        mask.data = array.array("B", values.tobytes())
        diagnostics.publish(DiagnosticArray(status=[status]))
        publish["debug/processing_time_ms"](Float64(data=1.5))
        if "front/confidence" in publish:
            publish["front/confidence"](mask)
        publish["front/mask"](mask)
        if not calibrations:
            return
        grid = OccupancyGrid(header=message.header)
        grid.header.frame_id = "base_link"
        grid.info.width, grid.info.height, grid.info.resolution = 3, 2, 0.5
        grid.info.origin.position.x, grid.info.origin.position.y = -1.0, -2.0
        grid.data = array.array("b", [0, 0, 100, -1, 0, 0])
        publish["drivable_area/grid"](grid)
        publish["drivable_area/contacts"](contact_cloud(message.header))

    status = DiagnosticStatus(name="mfuser: front", values=[KeyValue(key="model", value="stand-in")])
    node.create_timer(0.2, lambda: diagnostics.publish(DiagnosticArray(status=[status])))
    pictures = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE) if arguments.reliable else BEST_EFFORT
    node.create_subscription(Image, "/front/image_raw", on_image, pictures)
    node.create_subscription(CompressedImage, "/front/image_raw/compressed", on_image, pictures)
    node.create_subscription(CameraInfo, "/front/camera_info", calibrations.append, BEST_EFFORT)
    publish["class_map"](String(data='{"version": 1}'))
    rclpy.spin(node)


def contact_cloud(header) -> PointCloud2:
    """One contact of a car at (7.5, -1, 0.3), in a layout with padding."""
    record = np.zeros(1, {"names": ["x", "y", "z", "class_id"], "formats": ["<f4", "<f4", "<f4", "u1"], "itemsize": 20})
    record[0] = (7.5, -1.0, 0.3, 13)
    kinds = (PointField.FLOAT32, PointField.FLOAT32, PointField.FLOAT32, PointField.UINT8)
    fields = [
        PointField(name=name, offset=4 * index, datatype=kind, count=1)
        for index, (name, kind) in enumerate(zip(("x", "y", "z", "class_id"), kinds, strict=True))
    ]
    cloud = PointCloud2(header=header, height=1, width=1, fields=fields, point_step=20, row_step=20, is_dense=True)
    cloud.data = array.array("B", record.tobytes())
    return cloud


if __name__ == "__main__":
    main()
