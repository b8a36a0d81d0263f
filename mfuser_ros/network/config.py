"""Architecture of an MFuser network as data, and the presets.

A preset is the whole description: nothing in the network reads a default that is not written here.
Letters and numbers of `eva02-l`, `clip-l` and `siglip-l` follow the published configurations (Zhang & Tan, CVPR 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from mfuser_ros.errors import ConfigurationError

Triple = tuple[float, float, float]

CLIP_MEAN: Triple = (255 * 0.48145466, 255 * 0.4578275, 255 * 0.40821073)
CLIP_STD: Triple = (255 * 0.26862954, 255 * 0.26130258, 255 * 0.27577711)
IMAGENET_MEAN: Triple = (255 * 0.485, 255 * 0.456, 255 * 0.406)
IMAGENET_STD: Triple = (255 * 0.229, 255 * 0.224, 255 * 0.225)
HALF: Triple = (127.5, 127.5, 127.5)  # x / 127.5 - 1, the convention of SigLIP and of TensorFlow's MobileNets


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TowerConfig(_Config):
    """One vision tower: a timm network that is run stage by stage."""

    layout: Literal["dinov2", "beit", "eva02", "clip", "siglip", "mobilenetv2"]  # how the network is cut into stages
    model: str  # name for timm.create_model
    options: dict[str, Any] = {}  # its keyword arguments; their types are timm's affair, hence Any
    stages: PositiveInt | None = None  # groups that a transformer's blocks are run in; None: one block each
    mean: Triple  # statistics of RGB values 0..255 that the tower was trained with
    std: Triple


FusionKind = Literal[
    "mvfuser",
    "separate-mvfuser",
    "self-attention",
    "separate-self-attention",
    "deformable",
    "convolution",
    "cross-attention",
    "rein",
    "none",
]


class FusionConfig(_Config):
    """What lies between the towers: MVFusers as published, or one of what the paper compares them with."""

    kind: FusionKind = "mvfuser"
    stages: tuple[int, ...]  # the towers are fused after each of these stages
    width: PositiveInt | None  # None: the towers' own width; else each tower is normalised and mapped to it and back
    state: PositiveInt = 16  # of an MVFuser's scan
    scan: Literal["forward", "both"] = "forward"  # both (not published): tokens also hear of those after them
    heads: PositiveInt = 16  # of self-attention and deformable attention
    points: PositiveInt = 4  # of deformable attention
    tokens: PositiveInt = 100  # learned ones of cross-attention and rein
    rank: PositiveInt = 16  # of those tokens
    initial_scale: PositiveFloat = 0.001
    dropout: float = Field(default=0.1, ge=0, lt=1)
    vfm_bridge: bool = False  # maps lead the VFM's tokens to the VLM's width and their offsets back, without a norm

    @model_validator(mode="after")
    def _one_kind_of_bridge(self) -> FusionConfig:
        if self.vfm_bridge and self.width is not None:
            raise ValueError("fusion.width already bridges both towers: set vfm_bridge or width, not both")
        return self

    @model_validator(mode="after")
    def _scan_is_an_mvfusers(self) -> FusionConfig:
        if self.scan != "forward" and self.kind not in ("mvfuser", "separate-mvfuser"):
            raise ValueError(f"fusion.scan: {self.kind} has no scan: leave it out or choose kind mvfuser")
        return self


class PyramidNeck(_Config):
    """Four taps of plain vision transformers, brought to strides 1/4, 1/2, 1 and 2 of the patch grid."""

    kind: Literal["pyramid"] = "pyramid"
    taps: tuple[int, int, int, int]  # one tapped stage for each level, finest first


class ResizedNeck(_Config):
    """Four taps of plain vision transformers, resized to strides 1/4, 1/2, 1 and 2 of the patch grid, as Rein does."""

    kind: Literal["resized"] = "resized"
    taps: tuple[int, int, int, int]  # one tapped stage for each level, finest first


class StridedNeck(_Config):
    """Taps of towers that shrink the picture themselves: levels are concatenations; the coarsest is pooled."""

    kind: Literal["strided"] = "strided"
    taps: tuple[
        tuple[int, ...], tuple[int, ...], tuple[int, ...]
    ]  # stages of level 0 (finest), 1, 2; 3 is pooled from 2


Neck = PyramidNeck | ResizedNeck | StridedNeck


class StoredText(_Config):
    """Text embeddings that ship inside the checkpoint, one row for each class."""

    kind: Literal["stored"] = "stored"


class DroppedText(_Config):
    """What a text tower gave for the classes, one row for each; the tower itself was left out of the checkpoint."""

    kind: Literal["dropped"] = "dropped"


class LinkedText(_Config):
    """No text: Rein's queries, made from its tokens and as many; training matches them with the classes it sees."""

    kind: Literal["linked"] = "linked"


class TextTower(_Config):
    """A text tower with learned contexts after the first token; the sizes that all of them have."""

    vocabulary: PositiveInt = 49408
    width: PositiveInt = 768
    heads: PositiveInt = 12
    layers: PositiveInt = 12
    contexts: PositiveInt = 5
    tokens: PositiveInt = 5  # ids of a class name, padded


class EvaText(TextTower):
    """The text tower of EVA02-CLIP."""

    kind: Literal["eva02"] = "eva02"
    contexts: PositiveInt = 8


class ClipText(TextTower):
    """The text tower of OpenAI's CLIP."""

    kind: Literal["clip"] = "clip"


class SiglipText(TextTower):
    """The text tower of SigLIP; token ids come with the weights, because its tokenizer does not ship with us."""

    kind: Literal["siglip"] = "siglip"
    vocabulary: PositiveInt = 32000
    width: PositiveInt = 1024
    heads: PositiveInt = 16
    layers: PositiveInt = 24
    hidden: PositiveInt = 4096  # of the feed-forward networks


class EnhancerConfig(_Config):
    """What conditions the text queries on the picture: MTEnhancer as published, or what the paper compares it with."""

    # without-hybrid: no self-attention; cross-attention: the layer of tqdm; none: the text stays as it is
    kind: Literal["mtenhancer", "without-hybrid", "cross-attention", "none"] = "mtenhancer"
    width: PositiveInt = 256
    heads: PositiveInt = 4
    layers: PositiveInt = 1
    initial_scale: PositiveFloat = 0.001
    dropout: float = Field(default=0.1, ge=0, lt=1)


class HeadConfig(_Config):
    """Pixel decoder and query decoder."""

    width: PositiveInt = 256
    heads: PositiveInt = 8
    pixel_hidden: PositiveInt = 2048  # of the feed-forward networks (the published comment says 1024, its code 2048)
    query_hidden: PositiveInt = 2048
    pixel_layers: PositiveInt = 6
    query_layers: PositiveInt = 9
    norm_groups: PositiveInt = 32
    points: PositiveInt = 4
    text_attention: bool = True  # of the pixel decoder

    @model_validator(mode="after")
    def _widths_divide(self) -> HeadConfig:
        if self.width % self.heads or self.width % self.norm_groups or self.width % 2:
            raise ValueError(
                f"width {self.width} must be even and divisible by {self.heads} heads and {self.norm_groups} groups"
            )
        return self


class WindowInput(_Config):
    """Sliding windows of the training crop over the picture at its own size (spec: crop 512, stride 341)."""

    kind: Literal["windows"] = "windows"
    crop: PositiveInt = 512
    stride: PositiveInt = 341


class WholeInput(_Config):
    """The whole picture, stretched to a long side and a short side of the nearest multiple."""

    kind: Literal["whole"] = "whole"
    long_side: PositiveInt = 640
    multiple: PositiveInt = 32


class Architecture(_Config):
    """A whole network."""

    name: str
    classes: PositiveInt = 19
    vfm: TowerConfig
    vlm: TowerConfig
    towers: Literal["both", "vfm", "vlm"] = "both"  # which of them are built; one alone is adapted by its own fusers
    fusion: FusionConfig
    neck: Annotated[Neck, Field(discriminator="kind")]
    text: Annotated[
        StoredText | DroppedText | LinkedText | EvaText | ClipText | SiglipText, Field(discriminator="kind")
    ]
    text_width: PositiveInt  # C_t: width of the space that text and picture share
    score_scale: PositiveFloat = 1 / 0.07  # the score map in training is scale * cosine + bias (spec 4.5); SigLIP's
    score_bias: float = 0.0  # come from its original file, and no published MFuser holds them
    enhancer: EnhancerConfig
    head: HeadConfig
    input: Annotated[WindowInput | WholeInput, Field(discriminator="kind")]

    @property
    def tower_names(self) -> tuple[str, ...]:
        """Names of the towers that are built, the VFM first."""
        return ("vfm", "vlm") if self.towers == "both" else (self.towers,)

    @property
    def matched(self) -> bool:
        """Whether a query stands for no class of its own, so that training matches queries with classes."""
        return self.text.kind == "linked"

    @model_validator(mode="after")
    def _fusion_fits_the_towers(self) -> Architecture:
        if self.fusion.vfm_bridge and self.towers != "both":
            raise ValueError(f"fusion.vfm_bridge joins two towers, towers is {self.towers}: set it to false")
        if self.fusion.kind == "rein" and self.towers == "both":
            raise ValueError("fusion.kind rein refines one tower: set towers to vfm or vlm")
        return self

    @model_validator(mode="after")
    def _linked_queries_have_tokens_and_no_text(self) -> Architecture:
        if not self.matched:
            return self
        if self.fusion.kind != "rein":
            raise ValueError(f"text.kind linked makes queries from Rein's tokens, fusion.kind is {self.fusion.kind}")
        if self.enhancer.kind != "none" or self.head.text_attention:
            raise ValueError("text.kind linked has no text: set enhancer.kind to none and head.text_attention to false")
        if self.fusion.tokens < self.classes:
            raise ValueError(f"fusion.tokens {self.fusion.tokens}: one for each of {self.classes} classes at least")
        return self


EVA02_L = Architecture(
    name="eva02-l",
    vfm=TowerConfig(
        layout="dinov2",
        model="vit_large_patch14_dinov2",
        options={"img_size": 512},
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    ),
    vlm=TowerConfig(
        layout="eva02",
        model="eva02_large_patch14_clip_336",
        options={"img_size": 512, "num_classes": 768},
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    fusion=FusionConfig(stages=tuple(range(24)), width=None),
    neck=PyramidNeck(taps=(7, 11, 15, 23)),
    text=EvaText(),
    text_width=768,
    enhancer=EnhancerConfig(),
    head=HeadConfig(),
    input=WindowInput(),
)

# DINOv2's kernel is resampled from 14 to 16 pixels, so that the patches of both towers see the same pixels.
_DINOV2_PATCH16 = TowerConfig(
    layout="dinov2",
    model="vit_large_patch14_dinov2",
    options={"img_size": 512, "patch_size": 16},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)

CLIP_L = Architecture(
    name="clip-l",
    vfm=_DINOV2_PATCH16,
    vlm=TowerConfig(
        layout="clip",
        model="vit_large_patch14_clip_quickgelu_336",
        # the published training drops paths of the frozen blocks, too
        options={"img_size": 512, "patch_size": 16, "num_classes": 768, "drop_path_rate": 0.1},
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    fusion=FusionConfig(stages=tuple(range(24)), width=None, vfm_bridge=True),
    neck=PyramidNeck(taps=(7, 11, 15, 23)),
    text=ClipText(),
    text_width=768,
    enhancer=EnhancerConfig(),
    head=HeadConfig(),
    input=WindowInput(),
)

SIGLIP_L = Architecture(
    name="siglip-l",
    vfm=_DINOV2_PATCH16,
    vlm=TowerConfig(
        layout="siglip",
        model="vit_large_patch16_siglip_384",
        options={"img_size": 512, "num_classes": 0, "act_layer": "gelu_tanh"},  # timm's own choice is the exact GELU
        mean=HALF,
        std=HALF,
    ),
    fusion=FusionConfig(stages=tuple(range(24)), width=None),
    neck=PyramidNeck(taps=(7, 11, 15, 23)),
    text=SiglipText(),
    text_width=1024,
    enhancer=EnhancerConfig(),
    head=HeadConfig(),
    input=WindowInput(),
)

# Both towers are MobileNetV2 at output stride 16; "same" is the padding of TensorFlow, where their weights come from.
_MOBILENET = {"pad_type": "same", "output_stride": 16}

SMALL = Architecture(
    name="small",
    vfm=TowerConfig(layout="mobilenetv2", model="mobilenetv2_100", options=_MOBILENET, mean=HALF, std=HALF),
    vlm=TowerConfig(layout="mobilenetv2", model="mobilenetv2_100", options=_MOBILENET, mean=HALF, std=HALF),
    fusion=FusionConfig(stages=(3, 4, 5, 6), width=192, initial_scale=0.05, dropout=0.0),
    neck=StridedNeck(taps=((1,), (2,), (4, 6))),
    text=StoredText(),
    text_width=512,
    enhancer=EnhancerConfig(width=128, heads=4, layers=1, initial_scale=0.05, dropout=0.0),
    head=HeadConfig(
        width=128, heads=8, pixel_hidden=512, query_hidden=512, pixel_layers=2, query_layers=6, norm_groups=32, points=4
    ),
    input=WholeInput(long_side=640, multiple=32),
)

PRESETS: dict[str, Architecture] = {preset.name: preset for preset in (EVA02_L, CLIP_L, SIGLIP_L, SMALL)}


def changed(preset: str, changes: Mapping[str, Any]) -> Architecture:  # Any: whatever a YAML file may hold
    """A preset with some of its entries changed; mappings are merged key by key, all else is replaced.

    Neck, text and input of another kind share no key with those of the preset, so they are replaced as a whole.

    Args:
        preset: name in `PRESETS`.
        changes: in the form of the architecture, such as ``{"fusion": {"kind": "self-attention"}}``.

    Raises:
        ConfigurationError: no such preset, or the result breaks a rule; the text names the key.
    """
    if preset not in PRESETS:
        raise ConfigurationError(f"preset {preset!r}: choose one of {', '.join(PRESETS)}")
    try:
        base = PRESETS[preset].model_dump()
        for part in ("neck", "text", "input"):
            if (
                isinstance(changes.get(part), Mapping)
                and changes[part].get("kind", base[part]["kind"]) != base[part]["kind"]
            ):
                base[part] = {}
        return Architecture.model_validate(merged(base, changes))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "architecture"
        raise ConfigurationError(f"changes of preset {preset}: {where}: {first['msg']}: correct it") from error


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:  # Any: of a YAML file
    """`base` with the entries of `changes`; mappings are merged key by key, all else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result
