"""What the ids of label pictures mean: groups of the vocabulary's classes, in any numbering."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mfuser_ros import share
from mfuser_ros.datasets.config import DatasetConfig, labels_by_name, load_config
from mfuser_ros.datasets.label_ids import CITYSCAPES, SYNTHIA
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.vocabulary import UNKNOWN, Vocabulary

_MEND = "give name and labels, as a file of config/datasets has them"


class SchemeLabel(BaseModel):
    """One id in label pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: int = Field(ge=0, lt=UNKNOWN)
    name: str = Field(min_length=1)
    members: tuple[int, ...] = Field(min_length=1)  # class ids of the vocabulary


class LabelScheme(BaseModel):
    """A numbering of labels. Ids that stand for the same members are one group, under the first one's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    labels: tuple[SchemeLabel, ...] = Field(min_length=1)  # "fine": the 19 train ids; or the name of a set: its labels
    ids: dict[int, int] = Field(
        default_factory=dict
    )  # id in the pictures -> one of labels, or 255; cityscapes, synthia
    ignore: tuple[int, ...] = ()  # ids that are left out, like 255

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_by_name(cls, labels: Any) -> Any:  # whatever a YAML holds
        return labels_by_name(labels)

    @field_validator("ids", mode="before")
    @classmethod
    def _ids_by_name(cls, ids: Any) -> Any:  # likewise
        tables: dict[str, Mapping[int, int]] = {"cityscapes": CITYSCAPES, "synthia": SYNTHIA}
        return dict(tables[ids]) if isinstance(ids, str) and ids in tables else ids

    @model_validator(mode="after")
    def _ids_become_labels(self) -> LabelScheme:
        known = {label.id for label in self.labels} | {UNKNOWN}
        wrong = [source for source, label in self.ids.items() if label not in known or not 0 <= source <= UNKNOWN]
        if wrong:
            raise ValueError(f"ids: {wrong[0]} becomes {self.ids[wrong[0]]}, which is no label")
        return self

    @field_validator("labels")
    @classmethod
    def _groups_are_disjoint(cls, labels: tuple[SchemeLabel, ...]) -> tuple[SchemeLabel, ...]:
        ids = [label.id for label in labels]
        if len(set(ids)) != len(ids):
            raise ValueError(f"id {next(i for i in ids if ids.count(i) > 1)} stands twice")
        owner: dict[int, frozenset[int]] = {}
        for label in labels:
            group = frozenset(label.members)
            for member in label.members:
                if owner.setdefault(member, group) != group:
                    raise ValueError(f"class {member} belongs to two groups: such labels are for training only")
        return labels


@dataclass(frozen=True, eq=False)
class Grouping:
    """A scheme made ready for one vocabulary.

    Attributes:
        scheme: name of the scheme.
        names: of the groups, in the order of their first ids.
        members: class ids of each group.
        membership: (G, K) float32, or (G + 1, K) where classes belong to no group: the last row holds these.
        fine: (256,) uint8, group -> the first of its members; 255 stays.
    """

    scheme: str
    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    membership: np.ndarray
    fine: np.ndarray
    _groups: np.ndarray  # (256,) int16 raw id -> group, 255 ignored, -1 not known
    _known: str

    def groups_of(self, label: np.ndarray, name: str) -> np.ndarray:
        """Raw ids (H, W) as groups, uint8 (H, W), 255 where a label says nothing.

        Raises:
            ConfigurationError: an id that the scheme does not map; the text says which and in what.
        """
        mapped: np.ndarray = self._groups[label]
        if mapped.min(initial=0) < 0:
            wrong = int(label[mapped < 0].min())
            raise ConfigurationError(
                f"{name}: holds id {wrong}, {self.scheme} maps {self._known}: add it or put it in ignore"
            )
        return np.asarray(mapped.astype(np.uint8))

    def road(self, vocabulary: Vocabulary) -> int | None:
        """The group that holds the first class one may drive on, whatever else it holds; None if none does."""
        first = next(iter(vocabulary.ids_with_role(("drivable",))), None)
        return next((index for index, members in enumerate(self.members) if first in members), None)

    def with_role(self, vocabulary: Vocabulary, role: str) -> tuple[int, ...]:
        """Groups all of whose members have a role."""
        ids = set(vocabulary.ids_with_role((role,)))
        return tuple(index for index, members in enumerate(self.members) if set(members) <= ids)


def group(scheme: LabelScheme, vocabulary: Vocabulary) -> Grouping:
    """Make a scheme ready.

    Raises:
        ConfigurationError: a member is no class of the vocabulary.
    """
    classes = len(vocabulary)
    order: dict[frozenset[int], int] = {}
    names, members = [], []
    groups = np.full(256, -1, np.int16)
    groups[[UNKNOWN, *scheme.ignore]] = UNKNOWN
    for label in scheme.labels:
        if max(label.members) >= classes:
            raise ConfigurationError(
                f"{scheme.name}: label {label.name} has member {max(label.members)}, the vocabulary ends at "
                f"{classes - 1}: mend the scheme"
            )
        key = frozenset(label.members)
        if key not in order:
            order[key] = len(order)
            names.append(label.name)
            members.append(label.members)
        groups[label.id] = order[key]
    if scheme.ids:
        of_labels, groups = groups, np.full(256, -1, np.int16)
        groups[[UNKNOWN, *scheme.ignore]] = UNKNOWN
        for source, target in scheme.ids.items():
            groups[source] = of_labels[target]
    membership = np.zeros((len(names), classes), np.float32)
    for row, ids in enumerate(members):
        membership[row, list(ids)] = 1
    rest = 1 - membership.sum(0, keepdims=True)
    if rest.any():
        membership = np.concatenate([membership, rest])
    fine = np.full(256, UNKNOWN, np.uint8)
    fine[: len(members)] = [ids[0] for ids in members]
    known = ", ".join(map(str, sorted(scheme.ids) or [label.id for label in scheme.labels]))
    return Grouping(scheme.name, tuple(names), tuple(members), membership, fine, groups, known)


def own_scheme(vocabulary: Vocabulary) -> LabelScheme:
    """The scheme whose ids are those of the vocabulary."""
    labels = tuple(SchemeLabel(id=entry.id, name=entry.name, members=(entry.id,)) for entry in vocabulary.entries())
    return LabelScheme(name="vocabulary", labels=labels)


def of_dataset(config: DatasetConfig) -> LabelScheme:
    """The scheme of a data set's labels, as `mfuser_ros.datasets` reads them."""
    labels = tuple(SchemeLabel.model_validate(label.model_dump()) for label in config.labels)
    return LabelScheme(name=config.name, labels=labels)


def parse_scheme(content: Any, source: str) -> LabelScheme:  # Any: what YAML or JSON holds
    """A scheme from what a YAML file or a message says.

    Raises:
        ConfigurationError: a rule is broken; the text names source and entry.
    """
    try:
        return LabelScheme.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise ConfigurationError(f"{source}: {where}: {first['msg']}: {_MEND}") from error


def load_scheme(name_or_path: str | Path) -> LabelScheme:
    """The scheme of a set in config/datasets, or of a YAML file.

    Raises:
        ConfigurationError: the file is missing, is no YAML or breaks a rule; the text names file and entry.
    """
    is_name = isinstance(name_or_path, str) and re.fullmatch(r"[\w-]+", name_or_path)
    file = share.find("config/datasets") / f"{name_or_path}.yaml" if is_name else Path(name_or_path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read ({error.strerror}): {_MEND}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: is no YAML ({' '.join(str(error).split())}): {_MEND}") from error
    if isinstance(content, Mapping) and "splits" in content:
        return of_dataset(load_config(file))
    return parse_scheme(content, str(file))
