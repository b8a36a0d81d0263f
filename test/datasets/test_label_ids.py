"""Tables of label ids: against the published ids, and the rules for Mapillary's names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mfuser_ros import vocabulary
from mfuser_ros.datasets.label_ids import CITYSCAPES, STRANGE, SYNTHIA, lookup, mapillary, mapillary_train_id
from mfuser_ros.errors import DatasetError

# class -> id in the files, written out by hand from the tables of the sets
CITYSCAPES_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
SYNTHIA_IDS = {
    "sky": 1, "building": 2, "road": 3, "sidewalk": 4, "fence": 5, "vegetation": 6, "pole": 7, "car": 8,
    "traffic sign": 9, "person": 10, "bicycle": 11, "motorcycle": 12, "traffic light": 15, "terrain": 16, "rider": 17,
    "truck": 18, "bus": 19, "train": 20, "wall": 21,
}  # fmt: skip

# readable names of the classes in the order of their ids, as the config files of the two versions list them
VISTAS_1_2 = """Bird, Ground Animal, Curb, Fence, Guard Rail, Barrier, Wall, Bike Lane, Crosswalk - Plain, Curb Cut,
Parking, Pedestrian Area, Rail Track, Road, Service Lane, Sidewalk, Bridge, Building, Tunnel, Person, Bicyclist,
Motorcyclist, Other Rider, Lane Marking - Crosswalk, Lane Marking - General, Mountain, Sand, Sky, Snow, Terrain,
Vegetation, Water, Banner, Bench, Bike Rack, Billboard, Catch Basin, CCTV Camera, Fire Hydrant, Junction Box, Mailbox,
Manhole, Phone Booth, Pothole, Street Light, Pole, Traffic Sign Frame, Utility Pole, Traffic Light, Traffic Sign (Back),
Traffic Sign (Front), Trash Can, Bicycle, Boat, Bus, Car, Caravan, Motorcycle, On Rails, Other Vehicle, Trailer, Truck,
Wheeled Slow, Car Mount, Ego Vehicle, Unlabeled"""
VISTAS_2_0 = """Bird, Ground Animal, Ambiguous Barrier, Concrete Block, Curb, Fence, Guard Rail, Barrier, Road Median,
Road Side, Lane Separator, Temporary Barrier, Wall, Bike Lane, Crosswalk - Plain, Curb Cut, Driveway, Parking,
Parking Aisle, Pedestrian Area, Rail Track, Road, Road Shoulder, Service Lane, Sidewalk, Traffic Island, Bridge,
Building, Garage, Tunnel, Person, Person Group, Bicyclist, Motorcyclist, Other Rider, Lane Marking - Dashed Line,
Lane Marking - Straight Line, Lane Marking - Zigzag Line, Lane Marking - Ambiguous, Lane Marking - Arrow (Left),
Lane Marking - Arrow (Other), Lane Marking - Arrow (Right), Lane Marking - Arrow (Split Left or Straight),
Lane Marking - Arrow (Split Right or Straight), Lane Marking - Arrow (Straight), Lane Marking - Crosswalk,
Lane Marking - Give Way (Row), Lane Marking - Give Way (Single), Lane Marking - Hatched (Chevron),
Lane Marking - Hatched (Diagonal), Lane Marking - Other, Lane Marking - Stop Line, Lane Marking - Symbol (Bicycle),
Lane Marking - Symbol (Other), Lane Marking - Text, Lane Marking (only) - Dashed Line, Lane Marking (only) - Crosswalk,
Lane Marking (only) - Other, Lane Marking (only) - Test, Mountain, Sand, Sky, Snow, Terrain, Vegetation, Water, Banner,
Bench, Bike Rack, Catch Basin, CCTV Camera, Fire Hydrant, Junction Box, Mailbox, Manhole, Parking Meter, Phone Booth,
Pothole, Signage - Advertisement, Signage - Ambiguous, Signage - Back, Signage - Information, Signage - Other,
Signage - Store, Street Light, Pole, Pole Group, Traffic Sign Frame, Utility Pole, Traffic Cone,
Traffic Light - General (Single), Traffic Light - Pedestrians, Traffic Light - General (Upright),
Traffic Light - General (Horizontal), Traffic Light - Cyclists, Traffic Light - Other, Traffic Sign - Ambiguous,
Traffic Sign (Back), Traffic Sign - Direction (Back), Traffic Sign - Direction (Front), Traffic Sign (Front),
Traffic Sign - Parking, Traffic Sign - Temporary (Back), Traffic Sign - Temporary (Front), Trash Can, Bicycle, Boat,
Bus, Car, Caravan, Motorcycle, On Rails, Other Vehicle, Trailer, Truck, Vehicle Group, Wheeled Slow, Water Valve,
Car Mount, Dynamic, Ego Vehicle, Ground, Static, Unlabeled"""


def _names(text: str) -> list[str]:
    return " ".join(text.split()).split(", ")


def _config(path: Path, text: str) -> Path:
    labels = [{"name": name.lower(), "readable": name, "color": [0, 0, 0]} for name in _names(text)]
    path.write_text(json.dumps({"version": "1.0", "labels": labels}), encoding="utf-8")
    return path


def _by_class(ids: dict[int, int]) -> dict[str, list[int]]:
    names = vocabulary.load().names
    return {name: [source for source, train in ids.items() if train == number] for number, name in enumerate(names)}


@pytest.mark.parametrize(("table", "expected", "last"), [(CITYSCAPES, CITYSCAPES_IDS, 34), (SYNTHIA, SYNTHIA_IDS, 22)])
def test_table_holds_the_published_ids(table, expected, last):
    assert _by_class(dict(table)) == {name: [source] for name, source in expected.items()}
    assert sorted(table) == list(range(last + 1))  # all others that the set has are not labelled


def test_mapillary_v1_2_gives_the_ids_of_the_benchmark(tmp_path: Path):
    ids = mapillary(_config(tmp_path / "config.json", VISTAS_1_2))
    assert len(ids) == 66
    assert _by_class(ids) == {
        "road": [7, 8, 10, 13, 14, 23, 24], "sidewalk": [2, 9, 11, 15], "building": [17], "wall": [6], "fence": [3],
        "pole": [44, 45, 47], "traffic light": [48], "traffic sign": [46, 49, 50], "vegetation": [30], "terrain": [29],
        "sky": [27], "person": [19], "rider": [20, 21, 22], "car": [55], "truck": [61], "bus": [54], "train": [58],
        "motorcycle": [57], "bicycle": [52],
    }  # fmt: skip


def test_mapillary_v2_0_follows_the_same_rules_with_its_own_lights(tmp_path: Path):
    ids = mapillary(_config(tmp_path / "config_v2.0.json", VISTAS_2_0))
    assert len(ids) == 124
    by_class = _by_class(ids)
    assert by_class["road"] == [13, 14, 17, 18, 21, 23, *range(35, 59)]
    assert by_class["sidewalk"] == [4, 15, 19, 24]
    assert by_class["traffic light"] == [90, 91, 92, 93, 94, 95]  # cyclists' light is no rider
    assert by_class["traffic sign"] == [80, 87, *range(96, 104)]  # 80: Signage - Back, by the rule "back"
    assert by_class["pole"] == [84, 85, 86, 88]
    assert by_class["rider"] == [32, 33, 34]
    assert (by_class["train"], by_class["person"]) == ([111], [30])
    assert ids[75] == 255  # a parking meter is no road


@pytest.mark.parametrize(
    ("readable", "expected"),
    [("Traffic Light", 6), ("On Rails", 16), ("Bike Lane", 0), ("Crosswalk - Plain", 0), ("Bridge", 255), ("car", 13)],
)
def test_first_rule_that_fits_a_name_wins(readable: str, expected: int):
    assert mapillary_train_id(readable) == expected


@pytest.mark.parametrize("content", [None, "no json", "[]", '{"labels": [{"name": "x"}]}'])
def test_missing_or_strange_class_list_is_named(tmp_path: Path, content: str | None):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"config\.json: "):
        mapillary(path)


def test_lookup_marks_ids_that_a_set_does_not_have():
    table = lookup({0: 5, 3: 255})
    assert (table[0], table[3], table[255]) == (5, 255, 255)
    assert set(np.flatnonzero(table == STRANGE).tolist()) == set(range(256)) - {0, 3, 255}
