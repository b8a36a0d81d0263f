"""What a data set is: its files, the meaning of its label ids, the size it is evaluated at.

A label id stands for one or more of the 19 train ids ("members"). Sets with coarser labels than ours list several
members; sets whose small things carry the label behind them list the same member under several labels.

Files lie either in packed sets (photo/STEM.jpg, label/STEM.png) or as their authors publish them; then patterns say
where pictures and labels are, and a table turns the ids in the label files into label ids of the set.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from mfuser_ros import share, validated, vocabulary
from mfuser_ros.errors import DatasetError
from mfuser_ros.vocabulary import UNKNOWN

CLASSES = 19
PUBLISHED_WITHIN = (2048, 1024)


class Label(BaseModel):
    """One label id of a data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: int = Field(ge=0, lt=CLASSES)
    name: str = Field(min_length=1)
    members: tuple[int, ...] = Field(min_length=1)  # train ids

    @field_validator("members")
    @classmethod
    def _members_are_train_ids(cls, members: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 0 <= member < CLASSES for member in members) or len(set(members)) != len(members):
            raise ValueError(f"members must be different train ids from 0 to {CLASSES - 1}, found {list(members)}")
        return members


class Colour(BaseModel):
    """A colour of a label picture, RGB, and the label id that it stands for; 255: not labelled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rgb: tuple[int, int, int]
    id: int = Field(ge=0, le=UNKNOWN)


class LabelFiles(BaseModel):
    """One kind of label files of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str  # pattern under the set's folder; each * is what the picture's pattern met in its place
    ids: Literal["same", "cityscapes", "synthia", "mapillary"] | dict[int, int] = "same"  # id in the files -> label id
    classes: str | None = None  # of Mapillary: its config.json, under the set's folder
    channel: Literal["index", "red16"] = "index"  # index: grey or palette; red16: first channel of a 16-bit picture
    colours: tuple[Colour, ...] = ()  # instead of ids: a colour for each class
    hint: str = ""  # what else to try where these files are wrong

    @field_validator("ids")
    @classmethod
    def _ids_fit_in_a_byte(cls, ids: str | dict[int, int]) -> str | dict[int, int]:
        if isinstance(ids, dict) and any(not 0 <= number <= UNKNOWN for pair in ids.items() for number in pair):
            raise ValueError(f"ids and what they become must lie between 0 and {UNKNOWN}")
        return ids

    @model_validator(mode="after")
    def _mapillary_has_its_classes(self) -> LabelFiles:
        if (self.ids == "mapillary") != (self.classes is not None):
            raise ValueError("classes names the config.json of Mapillary Vistas: give it with ids: mapillary only")
        return self


class FileLayout(BaseModel):
    """Where an official release keeps its files; {split} stands for the path of a split, itself a pattern."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folders: tuple[str, ...] = Field(min_length=1)  # under the data folder; or the data folder is the set's own
    pictures: str
    labels: tuple[LabelFiles, ...] = Field(min_length=1)  # the first kind of which a file is there is read
    beside: tuple[str, ...] = ()  # patterns of other files among the labels, which have no picture
    leave_out: tuple[str, ...] = ()  # stems of pictures that are known to be broken

    @model_validator(mode="after")
    def _patterns_agree(self) -> FileLayout:
        for files in self.labels:
            if files.path.count("*") != self.pictures.count("*"):
                raise ValueError(f"{files.path} must have as many * as {self.pictures}")
        return self


class DatasetConfig(BaseModel):
    """A data set as its YAML in config/datasets/ states it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    format: Literal["packed", "files"]
    files: FileLayout | None = None  # of format files
    splits: dict[str, str] = Field(min_length=1)  # name of a split -> path under the data folder (packed: without .tar)
    labels: tuple[Label, ...] = Field(min_length=1)  # ascending ids; "fine": the 19; or the name of a set with the same
    size: tuple[PositiveInt, PositiveInt]  # height, width that pictures are evaluated at
    published_within: tuple[PositiveInt, PositiveInt] = PUBLISHED_WITHIN  # long, short side of the published protocol
    sequence: str | None = None  # regular expression; group 1 of a stem is its sequence
    presence: bool = True  # a class without labelled pixels is absent from the picture
    licence: str
    cite: str

    @field_validator("sequence")
    @classmethod
    def _sequence_has_one_group(cls, sequence: str | None) -> str | None:
        if sequence is not None and re.compile(sequence).groups != 1:
            raise ValueError(f"sequence needs one group, found {sequence!r}")
        return sequence

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_by_name(cls, labels: Any) -> Any:  # whatever a YAML holds
        return labels_by_name(labels)

    @field_validator("labels")
    @classmethod
    def _ids_ascend(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        ids = [label.id for label in labels]
        if ids != sorted(set(ids)):
            raise ValueError(f"ids must ascend and differ, found {ids}")
        return labels

    @model_validator(mode="after")
    def _layout_fits_the_format(self) -> DatasetConfig:
        if (self.format == "files") != (self.files is not None):
            raise ValueError("files belongs to format: files, and to it alone")
        return self

    @property
    def is_partition(self) -> bool:
        """Whether ids count up from 0 and each of the 19 classes belongs to exactly one, as scoring needs it."""
        members = [member for label in self.labels for member in label.members]
        ids = [label.id for label in self.labels]
        return sorted(members) == list(range(CLASSES)) and ids == list(range(len(ids)))

    @property
    def road(self) -> int | None:
        """Label id that the road belongs to; None where no label holds it."""
        return next((label.id for label in self.labels if 0 in label.members), None)

    def membership(self) -> np.ndarray:
        """(19, 19) bool: row g marks the members of label id g; rows of ids that do not exist are empty."""
        table = np.zeros((CLASSES, CLASSES), bool)
        for label in self.labels:
            table[label.id, list(label.members)] = True
        return table

    def palette(self) -> np.ndarray:
        """(256, 3) uint8 RGB: a colour for each label id, that of its first member; black for 255."""
        fine = vocabulary.load().palette()
        colours = np.zeros((UNKNOWN + 1, 3), np.uint8)
        for label in self.labels:
            colours[label.id] = fine[label.members[0]]
        return colours

    def sequence_of(self, stem: str) -> str:
        """Sequence that a picture belongs to; the stem itself where the set has none."""
        match = re.match(self.sequence, stem) if self.sequence else None
        return match.group(1) if match else stem

    def split(self, name: str) -> str:
        """Path of a split: under the data folder, without .tar, or what stands for {split} in patterns.

        Raises:
            DatasetError: there is no such split.
        """
        if name not in self.splits:
            raise DatasetError(f"{self.name}: has no split {name!r}: choose one of {', '.join(self.splits)}")
        return self.splits[name]


def shipped() -> list[str]:
    """Names of the sets in config/datasets."""
    return sorted(path.stem for path in share.find("config/datasets").glob("*.yaml"))


def labels_by_name(labels: Any) -> Any:  # whatever a YAML holds
    """The labels that a name stands for, as plain values: "fine" for the 19, or the name of a set for its own."""
    if isinstance(labels, str) and labels not in ("fine", *shipped()):
        raise ValueError(f"labels are a list, fine, or those of one of {', '.join(shipped())}; found {labels!r}")
    if labels == "fine":
        return [
            {"id": number, "name": name, "members": [number]} for number, name in enumerate(vocabulary.load().names)
        ]
    return [label.model_dump() for label in load_config(labels).labels] if isinstance(labels, str) else labels


def load_config(name_or_path: str | Path) -> DatasetConfig:
    """The data set called `name` (config/datasets/name.yaml), or the one that the YAML file at the path describes.

    Raises:
        DatasetError: the file is missing, is no YAML, or breaks a rule; the text names the file and the rule.
    """
    is_name = isinstance(name_or_path, str) and re.fullmatch(r"[\w-]+", name_or_path)
    file = share.find("config/datasets") / f"{name_or_path}.yaml" if is_name else Path(name_or_path)
    return validated.read(
        file,
        DatasetConfig,
        DatasetError,
        missing="give the name of a set in config/datasets or a YAML file",
        wrong="see config/datasets for the form",
    )
