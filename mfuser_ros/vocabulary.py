"""The classes that the node speaks of: ids, names, text queries, colours, roles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from mfuser_ros import share, validated
from mfuser_ros.errors import VocabularyError

Role = Literal["drivable", "walkable", "ground", "static", "dynamic", "sky"]

UNKNOWN = 255
"""Value of a mask where the model does not know, and of a label that must be ignored."""

UNKNOWN_COLOUR = (0, 0, 0)


class VocabularyClass(BaseModel):
    """One class of the vocabulary."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: int = Field(ge=0, le=254)
    name: str = Field(min_length=1)
    queries: tuple[str, ...] = Field(min_length=1)
    colour: tuple[int, int, int]  # RGB, 0..255
    role: Role

    @field_validator("colour")
    @classmethod
    def _colour_is_8_bit(cls, colour: tuple[int, int, int]) -> tuple[int, int, int]:
        if any(not 0 <= value <= 255 for value in colour):
            raise ValueError("a colour is three numbers from 0 to 255")
        return colour


class Vocabulary(BaseModel):
    """The classes in the order of their ids, which run from 0 without a gap."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[VocabularyClass, ...] = Field(min_length=1)

    @field_validator("classes")
    @classmethod
    def _ids_count_up(cls, classes: tuple[VocabularyClass, ...]) -> tuple[VocabularyClass, ...]:
        ids = [entry.id for entry in classes]
        if ids != list(range(len(ids))):
            raise ValueError(f"ids must be 0, 1, 2, ... in this order, found {ids}")
        names = [entry.name for entry in classes]
        if len(set(names)) != len(names):
            raise ValueError("two classes have the same name")
        return classes

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, class_id: int) -> VocabularyClass:
        return self.classes[class_id]

    def entries(self) -> Iterator[VocabularyClass]:
        """The classes in the order of their ids."""
        return iter(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return tuple(entry.name for entry in self.classes)

    def ids_with_role(self, roles: Sequence[str]) -> tuple[int, ...]:
        """Ids of the classes whose role is one of `roles`."""
        return tuple(entry.id for entry in self.classes if entry.role in roles)

    def palette(self) -> np.ndarray:
        """(256, 3) uint8 RGB: row i is the colour of id i, black for 255 and for ids that do not exist."""
        colours = np.zeros((256, 3), np.uint8)
        for entry in self.classes:
            colours[entry.id] = entry.colour
        colours[UNKNOWN] = UNKNOWN_COLOUR
        return colours


def load(path: str | Path | None = None) -> Vocabulary:
    """The shipped vocabulary, or the one in the YAML file at `path`.

    Raises:
        VocabularyError: the file is missing, is no YAML, or breaks a rule; the text names the file and the rule.
    """
    file = share.find("config/vocabulary.yaml") if path is None else Path(path)
    return validated.read(
        file,
        Vocabulary,
        VocabularyError,
        missing="give the path of a vocabulary YAML",
        wrong="see config/vocabulary.yaml for the form",
    )
