"""YAML files that hold one checked value: a vocabulary, a model's description, a data set, a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mfuser_ros.errors import MFuserError

Model = TypeVar("Model", bound=BaseModel)


def read(path: Path, model: type[Model], error: type[MFuserError], *, missing: str, wrong: str) -> Model:
    """Read a YAML file and check it against `model`.

    Args:
        path: of the file.
        model: what the file must hold.
        error: raised for every fault, in one line that names the file and, where there is one, the entry.
        missing: what mends a file that cannot be read.
        wrong: what mends one that is no YAML or breaks a rule.

    Raises:
        MFuserError: of the type `error`.
    """
    return check(path, content(path, error, missing=missing, wrong=wrong), model, error, wrong=wrong)


def content(path: Path, error: type[MFuserError], *, missing: str, wrong: str) -> Any:  # whatever the file holds
    """What a YAML file holds, unchecked; arguments and errors as for `read`."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror}): {missing}") from fault
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise error(f"{path}: is no YAML ({' '.join(str(fault).split())}): {wrong}") from fault


def check(path: Path, content: Any, model: type[Model], error: type[MFuserError], *, wrong: str) -> Model:
    """The content of a YAML file as a checked value; arguments and errors as for `read`."""
    try:
        return model.model_validate(content)
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise error(f"{path}: {where}: {first['msg']}: {wrong}") from fault
