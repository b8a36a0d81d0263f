"""Masks as Autoware's segmentation_pointcloud_fusion reads them: its classes, in run lengths."""

from __future__ import annotations

import numpy as np

from mfuser_ros.vocabulary import Vocabulary

RUN = np.dtype({"names": ["value", "length"], "formats": ["u1", "<i4"], "offsets": [0, 1], "itemsize": 5})
"""One record: a value and how many pixels in raster order have it."""

CLASSES = (
    "UNKNOWN", "BUILDING", "WALL", "OBSTACLE", "TRAFFIC_LIGHT", "TRAFFIC_SIGN", "PERSON", "VEHICLE", "BIKE", "ROAD",
    "SIDEWALK", "ROAD_PAINT", "CURBSTONE", "CROSSWALK", "VEGETATION", "SKY",
)  # fmt: skip
"""Autoware's classes by id, from its config/segmentation_pointcloud_fusion.param.yaml."""

_CLASS_OF = {
    "road": "ROAD",
    "sidewalk": "SIDEWALK",
    "building": "BUILDING",
    "wall": "WALL",
    "fence": "OBSTACLE",
    "pole": "OBSTACLE",
    "traffic light": "TRAFFIC_LIGHT",
    "traffic sign": "TRAFFIC_SIGN",
    "vegetation": "VEGETATION",
    "terrain": "VEGETATION",
    "sky": "SKY",
    "person": "PERSON",
    "rider": "PERSON",
    "car": "VEHICLE",
    "truck": "VEHICLE",
    "bus": "VEHICLE",
    "train": "VEHICLE",
    "motorcycle": "BIKE",
    "bicycle": "BIKE",
}


def class_table(vocabulary: Vocabulary) -> np.ndarray:
    """(256,) uint8: Autoware's class for each id of a mask; UNKNOWN for 255 and for classes that Autoware lacks."""
    table = np.zeros(256, np.uint8)
    for entry in vocabulary.classes:
        table[entry.id] = CLASSES.index(_CLASS_OF.get(entry.name, "UNKNOWN"))
    return table


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """Runs of equal values in raster order; a run goes on over the end of a row.

    Args:
        mask: (H, W) uint8, at least one pixel.

    Returns:
        (R,) array of `RUN`.

    Source: the encoder of autoware_tensorrt_yolox, tensorrt_yolox_node.cpp.
    """
    values = mask.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    runs = np.empty(len(starts), RUN)
    runs["value"] = values[starts]
    runs["length"] = np.diff(starts, append=len(values))
    return runs
