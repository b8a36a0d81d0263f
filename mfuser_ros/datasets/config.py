"""What a data set is: its files, the meaning of its label ids, the size it is evaluated at.

A label id stands for one or more of the 19 train ids ("members"). Sets with coarser labels than ours list several
members; sets whose small things carry the label behind them list the same member under several labels.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from mfuser_ros import share, validated
from mfuser_ros.errors import DatasetError

CLASSES = 19


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


class DatasetConfig(BaseModel):
    """A data set as its YAML in config/datasets/ states it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    format: Literal["packed"]
    splits: dict[str, str] = Field(min_length=1)  # name of a split -> path under the data folder, without .tar
    labels: tuple[Label, ...] = Field(min_length=1)  # in ascending order of their ids
    size: tuple[PositiveInt, PositiveInt]  # height, width that pictures are evaluated at
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

    @field_validator("labels")
    @classmethod
    def _ids_ascend(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        ids = [label.id for label in labels]
        if ids != sorted(set(ids)):
            raise ValueError(f"ids must ascend and differ, found {ids}")
        return labels

    @property
    def is_partition(self) -> bool:
        """Whether ids count up from 0 and each of the 19 classes belongs to exactly one, as scoring needs it."""
        members = [member for label in self.labels for member in label.members]
        ids = [label.id for label in self.labels]
        return sorted(members) == list(range(CLASSES)) and ids == list(range(len(ids)))

    def membership(self) -> np.ndarray:
        """(19, 19) bool: row g marks the members of label id g; rows of ids that do not exist are empty."""
        table = np.zeros((CLASSES, CLASSES), bool)
        for label in self.labels:
            table[label.id, list(label.members)] = True
        return table

    def sequence_of(self, stem: str) -> str:
        """Sequence that a picture belongs to; the stem itself where the set has none."""
        match = re.match(self.sequence, stem) if self.sequence else None
        return match.group(1) if match else stem

    def split(self, name: str) -> str:
        """Path of a split under the data folder, without .tar.

        Raises:
            DatasetError: there is no such split.
        """
        if name not in self.splits:
            raise DatasetError(f"{self.name}: has no split {name!r}: choose one of {', '.join(self.splits)}")
        return self.splits[name]


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
