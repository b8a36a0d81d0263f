"""A training recipe as data: config/train/*.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from mfuser_ros import validated
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.config import merged

_FORM = "see config/train for the form"


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RareClasses(_Config):
    """Rare-class sampling: draw a class, a picture that shows enough of it, and a crop that does (spec 6.5)."""

    temperature: PositiveFloat  # of the softmax over 1 - frequency that classes are drawn by
    picture_pixels: NonNegativeInt  # a picture with more pixels of the class may be drawn
    crop_pixels: NonNegativeInt  # the crop is drawn anew until it has more of them
    tries: PositiveInt  # then the last one stays


class SourceConfig(_Config):
    """One data set of the mixture."""

    dataset: str  # name or path of a YAML of config/datasets
    split: str
    samples: PositiveInt  # of each batch, over all processes
    nominal: tuple[PositiveInt, PositiveInt] | None = None  # height, width that a scale of 1 brings pictures to;
    # None: their own
    rare: dict[int, PositiveFloat] = {}  # label id -> how much more often a picture that shows it is drawn
    rare_classes: RareClasses | None = None  # another way to the same, from disk only
    leave_out: tuple[str, ...] = ()  # sequences that are kept for selection
    # device: all pictures live there as bytes, at most 480 pixels long; disk: worker processes read and cut them;
    # auto: the device for sets that are small at full size
    where: Literal["auto", "device", "disk"] = "auto"

    @model_validator(mode="after")
    def _one_way_to_rare_classes(self) -> SourceConfig:
        if self.rare and self.rare_classes:
            raise ValueError("rare and rare_classes are two ways to the same: give one")
        if self.rare_classes and self.where != "disk":
            raise ValueError("rare_classes needs pictures that are read one by one: set where to disk")
        return self


class TowerFiles(_Config):
    """Files under the folder given by --towers."""

    vfm: str
    vlm: str  # for a preset with a text tower the original encoder's file, which holds that, too
    text: str | None = None  # tensor `text`, one row for each class, for a preset with stored text
    tokens: str | None = None  # token ids of the class names, or a sentencepiece model, for SigLIP's text tower


class CropConfig(_Config):
    """Geometry of the crops."""

    size: tuple[PositiveInt, PositiveInt]  # height, width; multiples of 32
    scale: tuple[PositiveFloat, PositiveFloat]  # on top of the nominal size
    aspect: float = Field(default=0, ge=0, lt=1)  # width over height changes by up to this share
    rotation_deg: NonNegativeFloat = 0  # standard deviation


class OptimizerConfig(_Config):
    """AdamW, schedule, averaging."""

    rate: PositiveFloat
    tower_rate: NonNegativeFloat  # 0 freezes the towers
    weight_decay: NonNegativeFloat  # outside the towers
    tower_weight_decay: NonNegativeFloat
    # regular expressions; parameters with a name that one is found in do not decay. None: vectors do not
    without_decay: tuple[str, ...] | None = None
    betas: tuple[float, float]
    warm_up_steps: PositiveInt
    warm_up_from: float | None = Field(default=None, ge=0, le=1)  # share of the rate at step 0; None: one step's
    power: PositiveFloat  # of the polynomial
    floor: float = Field(default=0, ge=0, lt=1)  # share of the rate that the polynomial ends at
    clip: PositiveFloat | None  # norm of the gradient; None: as it is
    ema: float | None = Field(gt=0, lt=1)  # decay of the weights' moving average, which ships; None: the weights do

    @field_validator("without_decay")
    @classmethod
    def _patterns_are_expressions(cls, patterns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for pattern in patterns or ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression ({error})") from error
        return patterns


class LossConfig(_Config):
    """Weights of the losses."""

    marginal: NonNegativeFloat  # pixel-wise, on the assembled scores
    classes: NonNegativeFloat
    mask: NonNegativeFloat
    dice: NonNegativeFloat
    alignment: NonNegativeFloat
    language: NonNegativeFloat = 0  # the two regularisers of the rival tqdm: enhanced words stay near the plain ones,
    vision: NonNegativeFloat = 0  # and the last tower's view of the whole picture near that of the tower untrained
    auxiliary: NonNegativeFloat  # weight of each prediction before the last, whose weight is 1
    total: Literal["mean", "sum"] = "mean"  # over predictions; the sum is the published way
    alignment_stride: Literal[1, 4] = 4  # of the labels that the alignment is compared with; 1 is the published way
    points: PositiveInt  # of each mask
    frequency_power: float = Field(ge=-1, le=0)  # pixels of the marginal weigh frequency ** this
    unlabelled: Literal["skip", "background"]  # in the mask losses; background is the published way (Q39)


class ValidationConfig(_Config):
    """The light evaluation during training."""

    dataset: str
    split: str
    every_nth: PositiveInt  # picture
    minutes: PositiveFloat | None = None  # between two evaluations, looked at when the log is written
    steps: PositiveInt | None = None  # the same in steps; there is one at the end in any case


class TrainConfig(_Config):
    """A whole training."""

    preset: str  # of mfuser_ros.network.config.PRESETS
    changes: dict[str, Any] = {}  # to the preset's architecture, in its form, hence Any; see docs/alternatives.md
    seed: int
    steps: PositiveInt
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    towers: TowerFiles
    crop: CropConfig
    optimizer: OptimizerConfig
    losses: LossConfig
    validation: ValidationConfig
    # wide: any scale, place and direction, then light, colour and quality as vehicles meet them. published: scale
    # uniform, crops drawn anew while one class fills three quarters of them, little colour; from disk only (spec 6.5)
    augmentation: Literal["wide", "published"] = "wide"
    precision: Literal["bf16", "fp32"]  # of the network on a GPU; losses, softmax and scan are always float32
    channels_last: bool  # memory layout of maps
    workers: NonNegativeInt = 8  # processes that read pictures from disk, for each training process
    log_steps: PositiveInt
    save_minutes: PositiveFloat | None = None  # between two checkpoints, looked at when the log is written
    save_steps: PositiveInt | None = None  # the same in steps

    @model_validator(mode="after")
    def _something_is_saved(self) -> TrainConfig:
        if self.save_minutes is None and self.save_steps is None:
            raise ValueError("nothing would be saved before the end: set save_minutes or save_steps")
        return self

    @model_validator(mode="after")
    def _published_crops_are_upright_and_from_disk(self) -> TrainConfig:
        if self.augmentation == "published" and any(source.where != "disk" for source in self.sources):
            raise ValueError("augmentation published looks at the labels first: set where of every source to disk")
        if self.augmentation == "published" and (self.crop.aspect or self.crop.rotation_deg):
            raise ValueError("augmentation published keeps aspect and direction: set crop.aspect and rotation_deg to 0")
        return self

    @property
    def batch(self) -> int:
        """Crops of one step."""
        return sum(source.samples for source in self.sources)


def load_recipe(path: Path, **changes: Any) -> TrainConfig:  # of whatever type the key has
    """Read a recipe. Its entry `base` names files, relative to it, that it is laid over in this order, key by key.

    Args:
        path: of the YAML file.
        changes: keys of the recipe that have other values than in the file.

    Raises:
        ConfigurationError: a file is missing, is no YAML, or breaks a rule; the text names file and key.
    """
    content = _with_bases(path, ())
    if isinstance(content, dict):
        content |= changes
    return validated.check(path, content, TrainConfig, ConfigurationError, wrong=_FORM)


def _with_bases(path: Path, above: tuple[Path, ...]) -> Any:  # whatever a YAML file may hold
    content = validated.content(path, ConfigurationError, missing="see config/train", wrong=_FORM)
    if not isinstance(content, dict) or "base" not in content:
        return content
    if path.resolve() in above:
        raise ConfigurationError(f"{path}: is its own base: leave one `base` out")
    names = content.pop("base")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"{path}: base: must be a list of files: {_FORM}")
    bases: dict[str, Any] = {}
    for name in names:
        below = _with_bases(path.parent / name, (*above, path.resolve()))
        if not isinstance(below, dict):
            raise ConfigurationError(f"{path.parent / name}: must be a mapping to be a base: {_FORM}")
        bases = merged(bases, below)
    return merged(bases, content)
