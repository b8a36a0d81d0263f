"""An experiment: one recipe, varied row by row, each with several seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mfuser_ros import validated
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.config import merged
from mfuser_ros.training.config import TrainConfig
from mfuser_ros.training.together import Row


class Variation(BaseModel):
    """A recipe's entries that a row or a variant replaces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    recipe: dict[str, Any] = {}  # in the form of the recipe, hence Any; mappings are merged key by key


class Experiment(BaseModel):
    """Rows times variants times seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str  # recipe, a path beside this file
    rows: dict[str, Variation] = Field(min_length=1)
    variants: dict[str, Variation] = Field(min_length=1)

    @property
    def names(self) -> list[str]:
        """ROW.VARIANT of every training, in the order of the file."""
        return [f"{row}.{variant}" for row in self.rows for variant in self.variants]


def load_experiment(path: Path) -> Experiment:
    """Read an experiment, such as config/train/generalisation.yaml.

    Raises:
        ConfigurationError: the file is missing, is no YAML, or breaks a rule; the text names file and key.
    """
    return validated.read(
        path, Experiment, ConfigurationError, missing="see config/train", wrong="see config/train/generalisation.yaml"
    )


def row_of(experiment: Experiment, path: Path, name: str, seed: int) -> Row:
    """The training called ROW.VARIANT with a seed; its own name is ROW.VARIANT.SEED.

    Args:
        experiment: read from `path`.
        path: of its file, beside which the base recipe lies.
        name: one of `experiment.names`.
        seed: of the weights and of all draws.

    Raises:
        ConfigurationError: no such row, or its recipe breaks a rule.
    """
    if name not in experiment.names:
        raise ConfigurationError(f"{path}: has no row {name!r}: choose from {', '.join(experiment.names)}")
    row, _, variant = name.rpartition(".")
    base: Mapping[str, Any] = yaml.safe_load((path.parent / experiment.base).read_text(encoding="utf-8"))
    for change in (experiment.rows[row], experiment.variants[variant]):
        base = merged(base, change.recipe)
    try:
        recipe = TrainConfig.model_validate({**base, "seed": seed})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "recipe"
        raise ConfigurationError(f"{path}: {name}: {where}: {first['msg']}: correct it") from error
    return Row(f"{name}.{seed}", recipe)
