"""From the ids in label files to the label ids of a set: tables of the official sets.

Source of the tables: spec of MFuser section 7.2, which states them for each set from its own documentation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mfuser_ros import vocabulary
from mfuser_ros.errors import DatasetError
from mfuser_ros.vocabulary import UNKNOWN

STRANGE = 254
"""Entry of a lookup table for ids that a set does not have."""

_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of train ids 0, 1, 2, ...
_CITYSCAPES_LAST = 34  # GTA5 has the licence plate there, Cityscapes at -1
_SYNTHIA = (3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11)
_SYNTHIA_LAST = 22

CITYSCAPES: Mapping[int, int] = {
    **dict.fromkeys(range(_CITYSCAPES_LAST + 1), UNKNOWN),
    **{source: train for train, source in enumerate(_CITYSCAPES)},
}
"""Label id of Cityscapes and GTA5 -> train id."""

SYNTHIA: Mapping[int, int] = {
    **dict.fromkeys(range(_SYNTHIA_LAST + 1), UNKNOWN),
    **{source: train for train, source in enumerate(_SYNTHIA)},
}
"""Class id of SYNTHIA-RAND-CITYSCAPES -> train id."""

_MAPILLARY_RULES: tuple[tuple[tuple[str, ...], str | None], ...] = (
    # The first two are ours and change nothing in v1.2: v2.0 splits traffic lights into "... - Cyclists" and the like,
    # which the third and fifth rule would take for a sign and a rider, and has a parking meter, which the last would
    # take for road.
    (("trafficlight",), "traffic light"),
    (("parkingmeter",), None),
    (("trafficsign", "front", "back"), "traffic sign"),
    (("onrail",), "train"),
    (("cyclist", "rider"), "rider"),
    (("pole", "streetlight"), "pole"),
    (("curb", "pedestrianarea"), "sidewalk"),
    (("crosswalkplain", "parking", "bikelane", "servicelane", "lanemarking"), "road"),
)


def mapillary_train_id(readable: str) -> int:
    """Train id of a class of Mapillary Vistas by its readable name, such as "Lane Marking - General"; 255: none.

    A name that equals a Cityscapes class is that class; else the first rule wins whose words the name contains.
    """
    names = vocabulary.load().names
    squeezed = _squeezed(readable)
    for train_id, name in enumerate(names):
        if squeezed == _squeezed(name):
            return train_id
    for words, winner in _MAPILLARY_RULES:
        if any(word in squeezed for word in words):
            return UNKNOWN if winner is None else names.index(winner)
    return UNKNOWN


def mapillary(classes: Path) -> dict[int, int]:
    """Class id of Mapillary Vistas -> train id, from the config.json that comes with the set.

    Raises:
        DatasetError: the file is missing or of another form; the text names it.
    """
    try:
        labels = json.loads(classes.read_text(encoding="utf-8"))["labels"]
        readable = [str(label["readable"]) for label in labels]
    except OSError as error:
        raise DatasetError(f"{classes}: cannot be read ({error.strerror}): copy it from the data set") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{classes}: is no class list of Mapillary Vistas: copy it from the data set") from error
    return {number: mapillary_train_id(name) for number, name in enumerate(readable)}


def lookup(ids: Mapping[int, int]) -> np.ndarray:
    """(256,) uint8: entry i is the label id of file id i, 255 ignored, `STRANGE` where the set has no such id."""
    table = np.full(256, STRANGE, np.uint8)
    for source, label in ids.items():
        table[source] = label
    table[UNKNOWN] = ids.get(UNKNOWN, UNKNOWN)
    return table


def same(labels: Sequence[int]) -> dict[int, int]:
    """File ids that are the label ids already."""
    return {label: label for label in labels}


def _squeezed(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "")
