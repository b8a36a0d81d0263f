"""A training recipe as data: config/train/*.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mfuser_ros import validated
from mfuser_ros.errors import ConfigurationError


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(_Config):
    """One data set of the mixture."""

    dataset: str  # name or path of a YAML of config/datasets
    split: str
    samples: PositiveInt  # of each batch
    nominal: tuple[PositiveInt, PositiveInt]  # height, width that a scale of 1 brings pictures to
    rare: dict[int, PositiveFloat] = {}  # label id -> how much more often a picture that shows it is drawn
    leave_out: tuple[str, ...] = ()  # sequences that are kept for selection


class TowerFiles(_Config):
    """Files under the folder given by --towers."""

    vfm: str
    vlm: str
    text: str  # tensor `text`, one row for each class


class CropConfig(_Config):
    """Geometry of the crops."""

    size: tuple[PositiveInt, PositiveInt]  # height, width; multiples of 32
    scale: tuple[PositiveFloat, PositiveFloat]  # log-uniform, on top of the nominal size
    aspect: float = Field(ge=0, lt=1)  # width over height changes by up to this share
    rotation_deg: NonNegativeFloat  # standard deviation


class OptimizerConfig(_Config):
    """AdamW, schedule, averaging."""

    rate: PositiveFloat
    tower_rate: NonNegativeFloat  # 0 freezes the towers
    weight_decay: NonNegativeFloat  # of matrices outside the towers; vectors have none
    tower_weight_decay: NonNegativeFloat
    betas: tuple[float, float]
    warm_up_steps: PositiveInt
    power: PositiveFloat  # of the polynomial that ends at 0
    clip: PositiveFloat  # norm of the gradient
    ema: float = Field(gt=0, lt=1)  # decay of the weights' moving average, which is what ships


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
    minutes: PositiveFloat  # between two evaluations


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
    precision: Literal["bf16", "fp32"]  # of the network on a GPU; losses, softmax and scan are always float32
    channels_last: bool  # memory layout of maps
    log_steps: PositiveInt
    save_minutes: PositiveFloat

    @property
    def batch(self) -> int:
        """Crops of one step."""
        return sum(source.samples for source in self.sources)


def load_recipe(path: Path) -> TrainConfig:
    """Read a recipe.

    Raises:
        ConfigurationError: the file is missing, is no YAML, or breaks a rule; the text names file and key.
    """
    return validated.read(
        path, TrainConfig, ConfigurationError, missing="see config/train", wrong="see config/train for the form"
    )
