"""The paper's alternatives to MVFuser and MTEnhancer: what mixes with what, and that all of it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.alternatives import LinkedQueries, RankedTokens, build_mixer
from mfuser_ros.network.alternatives.tokens import ReinMaps, ReinMixer
from mfuser_ros.network.config import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    SMALL,
    Architecture,
    EnhancerConfig,
    FusionConfig,
    HeadConfig,
    PyramidNeck,
    ResizedNeck,
    StoredText,
    TowerConfig,
    WindowInput,
    changed,
)
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.neck import build_neck

WIDTH, GRID, CLASS_TOKEN = 16, (2, 3), 1
LENGTH = CLASS_TOKEN + GRID[0] * GRID[1]
KINDS = (
    "mvfuser",
    "separate-mvfuser",
    "self-attention",
    "separate-self-attention",
    "deformable",
    "convolution",
    "cross-attention",
    "rein",
)
TOKENS_ALONE = ("deformable", "convolution", "rein")  # kinds without an offset for the class token

VIT = {"img_size": 56, "embed_dim": 16, "depth": 4, "num_heads": 2}
DINOV2 = TowerConfig(
    layout="dinov2", model="vit_large_patch14_dinov2", options=VIT, mean=IMAGENET_MEAN, std=IMAGENET_STD
)
EVA02 = TowerConfig(
    layout="eva02",
    model="eva02_large_patch14_clip_336",
    options={**VIT, "num_classes": 20},
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
CLIP = TowerConfig(
    layout="clip",
    model="vit_large_patch14_clip_quickgelu_336",
    options={**VIT, "num_classes": 20},
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
SIGLIP = TowerConfig(
    layout="siglip",
    model="vit_large_patch16_siglip_384",
    options={**VIT, "patch_size": 14, "num_classes": 0, "act_layer": "gelu_tanh"},
    mean=HALF,
    std=HALF,
)


REIN = {
    "towers": "vfm",
    "fusion": {"kind": "rein"},
    "enhancer": {"kind": "none"},
    "text": {"kind": "linked"},
    "head": {"text_attention": False},
}


def fusion(kind: str, **options) -> FusionConfig:
    small = {"stages": (0, 1, 2, 3), "width": None, "heads": 4, "tokens": 5, "rank": 2, "dropout": 0.0}
    return FusionConfig(kind=kind, **small | options)


def architecture(**changes) -> Architecture:
    return Architecture(
        **{
            "name": "tiny",
            "classes": 3,
            "vfm": DINOV2,
            "vlm": EVA02,
            "fusion": fusion("mvfuser"),
            "neck": PyramidNeck(taps=(0, 1, 2, 3)),
            "text": StoredText(),
            "text_width": 20,
            "enhancer": EnhancerConfig(width=16, heads=2, dropout=0.0),
            "head": HeadConfig(
                width=16, heads=2, pixel_layers=1, query_layers=2, norm_groups=4, pixel_hidden=8, query_hidden=8
            ),
            "input": WindowInput(crop=56, stride=40),
        }
        | changes
    )


def run(network: MFuser, parts: tuple[str, ...]) -> list[str]:
    """Names of the parameters of these parts that get no gradient from a step, or one that is 0 everywhere."""
    text = network.text
    for tensor in text.state_dict().values():  # stored text starts empty
        tensor.copy_(torch.randn_like(tensor))
    output = network(torch.rand(2, 3, 56, 56) * 255)
    assert output.predictions[-1].mask_logits.shape == (2, 3, 16, 16)
    assert output.predictions[-1].class_logits.shape == (2, 3, 4)
    assert output.score_map.shape == (2, 3, 4, 4)
    loss = sum(p.class_logits.square().mean() + p.mask_logits.square().mean() for p in output.predictions)
    (loss + output.score_map.square().mean()).backward()
    return [
        name
        for part in parts
        for name, parameter in network.get_submodule(part).named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]


def influence(kind: str, **options) -> torch.Tensor:
    """(2, 2) bool: whether the offsets of tower i depend on the tokens of tower j beyond the border of the sequence."""
    torch.manual_seed(3)
    mixer = build_mixer(fusion(kind, initial_scale=1.0, **options), WIDTH).eval().double()
    towers = [torch.randn(1, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    offsets = mixer(towers, GRID)
    assert [offset.shape for offset in offsets] == [tower.shape for tower in towers]
    # the convolution of width 3 carries one token over the border, so the last of the VFM and the first of the VLM
    # are left out of what is looked at
    inner = (slice(0, LENGTH - 1), slice(1, LENGTH))
    heard = torch.zeros(2, 2, dtype=torch.bool)
    for i, offset in enumerate(offsets):
        gradients = torch.autograd.grad(
            offset[:, inner[i]].square().sum(), towers, retain_graph=True, allow_unused=True
        )
        for j, gradient in enumerate(gradients):
            heard[i, j] = gradient is not None and bool(gradient[:, inner[j]].any())
    return heard


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("mvfuser", {}, [[1, 0], [1, 1]]),  # as published: the VFM hears nothing of the VLM
        ("mvfuser", {"scan": "both"}, [[1, 1], [1, 1]]),
        ("separate-mvfuser", {}, [[1, 0], [0, 1]]),
        ("self-attention", {}, [[1, 1], [1, 1]]),
        ("separate-self-attention", {}, [[1, 0], [0, 1]]),
        ("deformable", {}, [[0, 1], [1, 0]]),  # where to look starts alike for all, so own tokens do not count yet
        ("convolution", {}, [[1, 1], [1, 1]]),
        ("cross-attention", {}, [[1, 1], [1, 1]]),
        ("rein", {}, [[1, 0], [0, 1]]),
    ],
)
def test_towers_hear_of_each_other_as_the_kind_says(kind, options, expected):
    assert influence(kind, **options).int().tolist() == expected


@pytest.mark.parametrize("kind", TOKENS_ALONE)
def test_class_token_gets_no_offset_from_kinds_that_need_a_place(kind):
    mixer = build_mixer(fusion(kind, initial_scale=1.0), WIDTH).eval()
    offsets = mixer([torch.randn(2, LENGTH, WIDTH), torch.randn(2, LENGTH - 1, WIDTH)], GRID)

    assert not offsets[0][:, 0].any()
    assert offsets[0][:, 1:].any()
    assert offsets[1].shape == (2, LENGTH - 1, WIDTH)  # SigLIP has no class token


def test_scan_in_both_directions_is_the_mean_of_the_scan_and_its_mirror_image():
    torch.manual_seed(0)
    both = build_mixer(fusion("mvfuser", scan="both", initial_scale=1.0), WIDTH).eval().double().mvfuser
    with torch.no_grad():
        both.conv_x.weight[:, 0, 0] = both.conv_x.weight[:, 0, 2]  # kernels that a mirror does not change
        both.conv_z.weight[:, 0, 0] = both.conv_z.weight[:, 0, 2]
        tokens = torch.randn(1, 9, WIDTH, dtype=torch.float64)
        torch.testing.assert_close(both(tokens.flip(1)).flip(1), both(tokens))
        both.scan = "forward"
        assert not torch.allclose(both(tokens.flip(1)).flip(1), both(tokens))


def test_rein_gives_the_numbers_of_its_equations():
    """One feature f = (1, 0) and tokens (9, 9), (ln 3 sqrt 2, 0), (0, 1) worked by hand; maps are identities."""
    maps = ReinMaps(2, 0.5)
    mixer = ReinMixer(2, 3, 2, maps)
    with torch.no_grad():
        for layer in (maps.of_tokens, maps.of_features):
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
        a = torch.log(torch.tensor(3.0)) * 2**0.5
        mixer.tokens.A.copy_(torch.tensor([[0.0, 5.0], [1, 0], [0, 1]]))
        mixer.tokens.B.copy_(torch.tensor([[a, 0], [0, 1.0]]))
        (offset,) = mixer([torch.tensor([[[7.0, 7], [1, 0]]])], (1, 1))

    # f T^T / sqrt 2 = (0, ln 3, 0): softmax (1, 3, 1) / 5; tokens 1 and 2 with 3/5 and 1/5, plus f itself; scale 1/2
    torch.testing.assert_close(offset, torch.tensor([[[0, 0], [0.3 * float(a) + 0.5, 0.1]]]))


def test_rein_makes_its_queries_from_the_tokens_of_all_stages():
    """Two stages of two tokens of width 1, worked by hand: Q_i = T_i + 1; Q = 10 max + 100 mean + last."""
    stages = [RankedTokens(1, 2, 1) for _ in range(2)]
    linked = LinkedQueries(stages, 1)
    with torch.no_grad():
        for tokens, values in zip(stages, ([[3.0], [-1]], [[1.0], [5]]), strict=True):
            tokens.A.copy_(torch.tensor(values))
            tokens.B.fill_(1)
        linked.of_tokens.weight.fill_(1)
        linked.of_tokens.bias.fill_(1)
        linked.merge.weight.copy_(torch.tensor([[10.0, 100, 1]]))
        linked.merge.bias.zero_()
        queries = linked()

    # Q_1 = (4, 0), Q_2 = (2, 6): 10 * 4 + 100 * 3 + 2 and 10 * 6 + 100 * 3 + 6
    torch.testing.assert_close(queries, torch.tensor([[342.0], [366]]))


def test_rein_decodes_a_query_for_each_token_at_the_place_that_the_token_says():
    torch.manual_seed(0)
    network = MFuser(changed("small", REIN))
    output = network(torch.rand(1, 3, 64, 96) * 255)
    assert output.predictions[-1].class_logits.shape == (1, 100, 20)
    assert output.predictions[-1].mask_logits.shape == (1, 100, 16, 24)
    assert output.score_map is None  # there is no text to be near to
    torch.testing.assert_close(output.queries[0], network.text())
    output.predictions[0].class_logits.square().sum().backward()
    tokens = network.fusion["3"].mixer.tokens
    assert tokens.A.grad.any()
    names = [name for name, _ in network.named_parameters() if name.endswith("tokens.A")]
    assert names == [f"fusion.{stage}.mixer.tokens.A" for stage in network.architecture.fusion.stages]


def test_learned_tokens_are_few_and_of_low_rank():
    tokens = build_mixer(fusion("cross-attention", tokens=7, rank=2), WIDTH).mixer.tokens()
    assert tokens.shape == (7, WIDTH)
    assert torch.linalg.matrix_rank(tokens) == 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rein"])
def test_network_with_any_fusion_trains_all_of_it(kind):
    torch.manual_seed(0)
    network = MFuser(architecture(fusion=fusion(kind)))
    with torch.no_grad():
        for name, parameter in network.fusion.named_parameters():
            if "sampling_offsets" in name or "attention_weights" in name:
                parameter.add_(torch.randn_like(parameter) / 10)  # they start where a gradient passes through zeros
    assert run(network, ("fusion", "joint") if network.joint else ("fusion",)) == []


@pytest.mark.parametrize("kind", ["mvfuser", "separate-mvfuser"])
def test_scan_in_both_directions_needs_no_other_weights(kind):
    forward, both = (MFuser(architecture(fusion=fusion(kind, scan=scan))) for scan in ("forward", "both"))
    both.load_state_dict(forward.state_dict())


def test_without_fusion_nothing_lies_between_the_towers():
    network = MFuser(architecture(fusion=fusion("none")))
    assert list(network.fusion.parameters()) == []
    assert run(network, ("pixel_decoder", "mask_decoder", "enhancer")) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mvfuser"])
def test_fusion_of_another_width_bridges_both_towers(kind):
    config = fusion(kind, width=8)
    network = MFuser(architecture(fusion=config, towers="vfm" if kind == "rein" else "both"))
    output = network(torch.rand(1, 3, 56, 56) * 255)
    assert output.encoded.pyramid[2].shape == (1, 16 if kind == "rein" else 32, 4, 4)


@pytest.mark.parametrize("towers", ["vfm", "vlm"])
@pytest.mark.parametrize("kind", ["mvfuser", "self-attention", "deformable", "convolution", "cross-attention", "rein"])
def test_one_tower_alone_is_adapted_and_decoded(towers, kind):
    torch.manual_seed(0)
    network = MFuser(architecture(towers=towers, fusion=fusion(kind)))
    other = "vlm" if towers == "vfm" else "vfm"
    assert not [name for name, _ in network.named_parameters() if name.startswith(other)]
    with torch.no_grad():
        for name, parameter in network.fusion.named_parameters():
            if "sampling_offsets" in name or "attention_weights" in name:
                parameter.add_(torch.randn_like(parameter) / 10)
    parts = ("fusion", "joint", "neck") if towers == "vfm" else ("fusion", "neck")
    assert run(network, parts) == []
    assert network.neck.channels == (16,) * 4


@pytest.mark.parametrize(
    ("vfm", "vlm"), [(SIGLIP, EVA02), (CLIP, EVA02), (DINOV2, CLIP), (DINOV2, SIGLIP), (SIGLIP, SIGLIP)]
)
def test_pairs_of_the_papers_table_5(vfm, vlm):
    torch.manual_seed(0)
    bridge = vlm is CLIP
    network = MFuser(
        architecture(
            vfm=vfm, vlm=vlm, fusion=fusion("mvfuser", vfm_bridge=bridge), text_width=16 if vlm is SIGLIP else 20
        )
    )
    assert run(network, ("fusion",)) == []


def test_other_vfm_of_timm_runs_block_by_block_as_timm_runs_it():
    torch.manual_seed(0)
    tower = DINOV2.model_copy(update={"model": "vit_large_patch16_224", "options": {**VIT, "patch_size": 14}})
    network = MFuser(architecture(vfm=tower)).eval()
    pictures = torch.rand(1, 3, 56, 56) * 255
    with torch.no_grad():
        state = network.vfm.embed(pictures)
        for stage in range(4):
            state = network.vfm.stage(stage, state)
        by_timm = network.vfm.net.forward_features(network.vfm.normalise(pictures))
        torch.testing.assert_close(network.vfm.final_norm(state), by_timm)
        network(pictures)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("vit_large_patch14_reg4_dinov2", VIT, "choose a model without registers"),
        ("deit3_large_patch16_224", {**VIT, "patch_size": 14}, "no position of its own for the class token"),
        ("vit_large_patch14_clip_224", VIT, "choose layout clip"),
        ("resnet18", {}, "no plain vision transformer"),
    ],
)
def test_vfm_that_cannot_be_run_so_is_refused_with_the_reason(model, options, words):
    with pytest.raises(ConfigurationError, match=words):
        MFuser(architecture(vfm=DINOV2.model_copy(update={"model": model, "options": options})))


def test_vfm_of_another_size_runs_its_blocks_in_as_many_stages():
    torch.manual_seed(0)
    wider = {**VIT, "embed_dim": 24, "depth": 7, "num_heads": 3}
    vfm = DINOV2.model_copy(update={"model": "vit_base_patch14_dinov2", "options": wider, "stages": 4})
    network = MFuser(architecture(vfm=vfm, fusion=fusion("mvfuser", width=8)))
    assert network.vfm.widths == (24,) * 4
    assert network.neck.channels == (24 + 16,) * 4
    assert run(network, ("fusion", "vfm.net.blocks")) == []

    network.eval()
    ran = []
    for index, block in enumerate(network.vfm.net.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    state = network.vfm.embed(torch.zeros(1, 3, 56, 56))
    groups = []
    for stage in range(4):
        ran.clear()
        state = network.vfm.stage(stage, state)
        groups.append(tuple(ran))
    assert groups == [(0,), (1, 2), (3, 4), (5, 6)]  # 7 blocks, as even as it goes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vfm": DINOV2.model_copy(update={"options": {**VIT, "depth": 5}})}, r"\(vfm 5 and vlm 4\): set the stages"),
        ({"vfm": DINOV2.model_copy(update={"stages": 5})}, "has 4 blocks, too few for 5 stages"),
        ({"vfm": DINOV2.model_copy(update={"options": {**VIT, "patch_size": 8}})}, "grids of 7x7 and 4x4 patches"),
        ({"fusion": fusion("mvfuser", stages=(0, 4))}, "fusion.stages: there are stages 0 to 3 only"),
        ({"neck": PyramidNeck(taps=(0, 1, 2, 4))}, "neck.taps: 4, but there are stages 0 to 3 only"),
    ],
)
def test_towers_that_do_not_fit_each_other_are_refused_with_the_reason(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        MFuser(architecture(**changes))


def test_stages_of_a_mobilenet_are_its_own():
    with pytest.raises(ConfigurationError, match="leave stages out"):
        MFuser(changed("small", {"vfm": {"stages": 3}}))


def test_reins_levels_are_the_maps_of_its_taps_resized():
    neck = build_neck(ResizedNeck(taps=(0, 1, 2, 3)), (5, 5, 5, 5))
    maps = {tap: torch.full((1, 5, 4, 4), float(tap)) for tap in range(4)}
    maps[3][..., ::2] = 5  # halves of 3 and 5

    levels = neck(maps)

    assert list(neck.parameters()) == []
    assert [level.shape[-2:] for level in levels] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert [level.unique().tolist() for level in levels] == [[0], [1], [2], [4]]


@pytest.mark.parametrize("kind", ["mtenhancer", "without-hybrid", "cross-attention"])
def test_every_enhancer_hears_of_the_picture_and_learns(kind):
    torch.manual_seed(0)
    config = EnhancerConfig(kind=kind, width=16, heads=2, layers=2, dropout=0.0, initial_scale=1.0)
    network = MFuser(architecture(enhancer=config))
    assert run(network, ("enhancer",)) == []
    network.eval()
    text, picture = torch.randn(1, 3, 20), torch.randn(1, 5, 20)
    with torch.no_grad():
        first, second = network.enhancer(text, picture), network.enhancer(text, picture.flip(-1))
    assert not torch.allclose(first, second)


def test_without_the_hybrid_a_query_hears_of_others_through_the_scan_alone():
    torch.manual_seed(0)
    config = EnhancerConfig(kind="without-hybrid", width=16, heads=2, dropout=0.0)
    names = [name for name, _ in MFuser(architecture(enhancer=config)).enhancer.named_parameters()]
    assert not [name for name in names if "self_attn" in name or "norm1" in name]
    assert [name for name in names if "layers.0.mvfuser" in name]


def test_without_enhancer_the_queries_are_the_text():
    network = MFuser(architecture(enhancer=EnhancerConfig(kind="none"))).eval()
    with torch.no_grad():
        output = network(torch.rand(1, 3, 56, 56) * 255)
    torch.testing.assert_close(output.queries[0], output.text)
    assert list(network.enhancer.parameters()) == []


def test_shipped_model_file_needs_no_new_key():
    described = yaml.safe_load((Path(__file__).parents[2] / "models" / "small.yaml").read_text())["architecture"]
    assert "kind" not in described["fusion"]
    read = Architecture.model_validate(described)
    assert (read.fusion.kind, read.fusion.scan, read.enhancer.kind, read.towers) == (
        "mvfuser",
        "forward",
        "mtenhancer",
        "both",
    )


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: fusion("self-attention", scan="both"), "self-attention has no scan"),
        (lambda: architecture(fusion=fusion("rein")), "rein refines one tower"),
        (lambda: architecture(towers="vlm", fusion=fusion("mvfuser", vfm_bridge=True)), "vfm_bridge joins two towers"),
    ],
)
def test_contradictions_are_refused_when_the_configuration_is_read(build, words):
    with pytest.raises(ValidationError, match=words):
        build()


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigurationError, match="5 heads do not divide width 16"):
        build_mixer(fusion("self-attention", heads=5), WIDTH)


def test_reins_maps_belong_to_all_blocks():
    network = MFuser(architecture(towers="vfm", fusion=fusion("rein")))
    names = [name for name, _ in network.fusion.named_parameters() if "of_" in name or "scale" in name]
    maps = [f"shared.of_{which}.{what}" for which in ("tokens", "features") for what in ("weight", "bias")]
    assert names == ["shared.scale", *maps]


ROWS = [
    (row[1].strip(), yaml.safe_load(row[2].strip(" `")))
    for row in (
        line.split("|") for line in (Path(__file__).parents[2] / "docs" / "alternatives.md").read_text().splitlines()
    )
    if len(row) in (4, 5) and "{" in row[2]
]


@pytest.mark.parametrize(("row", "changes"), ROWS, ids=[row for row, _ in ROWS])
def test_every_row_of_the_document_is_a_network_that_learns(row, changes):
    torch.manual_seed(0)
    network = MFuser(changed("small", changes))
    output = network(torch.rand(1, 3, 64, 96) * 255)
    loss = sum(p.class_logits.square().mean() + p.mask_logits.square().mean() for p in output.predictions)
    (loss if output.score_map is None else loss + output.score_map.square().mean()).backward()

    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    for key, value in changes.items():
        described = network.architecture.model_dump()[key]
        assert described == value if isinstance(value, str) else described.items() >= value.items()


LARGE = {
    row[1].strip(): (row[2].strip(" `"), yaml.safe_load(row[3].strip(" `")))
    for row in (
        line.split("|") for line in (Path(__file__).parents[2] / "docs" / "alternatives.md").read_text().splitlines()
    )
    if len(row) == 5 and "{" in row[3] and "{" not in row[2] and row[2].strip()
}


def test_rein_has_the_parameters_of_its_paper():
    _, changes = LARGE["Rein, patches of 16"]
    with torch.device("meta"):
        network = MFuser(changed("eva02-l", changes))

    added = [parameter.numel() for part in (network.fusion, network.text) for parameter in part.parameters()]

    assert sum(added) == 38_400 + 393_216 + 2 * 1_049_600 + 262_400 + 196_864 + 1  # 2.99 million
    assert list(network.neck.parameters()) == []


@pytest.mark.parametrize("row", LARGE)
def test_every_row_of_published_size_can_be_built(row):
    preset, changes = LARGE[row]
    architecture = changed(preset, changes)
    with torch.device("meta"):  # no memory is needed to see that all parts fit
        network = MFuser(architecture)
    assert len({len(tower.widths) for tower in network.towers}) == 1
    for key in ("vfm", "vlm"):
        if "model" in changes.get(key, {}):
            assert getattr(architecture, key).model == changes[key]["model"]
    assert {"SigLIP + EVA02", "CLIP + EVA02", "DINOv2 + CLIP", "DINOv2 + SigLIP", "Rein, patches of 16"} <= set(LARGE)


def test_document_holds_all_kinds():
    stated = {changes["fusion"].get("kind") for _, changes in ROWS if "fusion" in changes}
    assert stated >= {*KINDS, "none"}
    assert {changes["enhancer"]["kind"] for _, changes in ROWS if "enhancer" in changes} == {
        "mtenhancer",
        "without-hybrid",
        "cross-attention",
        "none",
    }


def test_changes_leave_the_rest_of_the_preset():
    network = changed("small", {"fusion": {"scan": "both"}})
    assert network == SMALL.model_copy(update={"fusion": SMALL.fusion.model_copy(update={"scan": "both"})})


@pytest.mark.parametrize(
    ("preset", "changes", "words"),
    [
        ("tiny", {}, "preset 'tiny': choose one of"),
        ("small", {"fusion": {"kind": "glue"}}, r"changes of preset small: fusion\.kind: .*'mvfuser'"),
        ("small", {"fusoin": {}}, "changes of preset small: fusoin: Extra inputs"),
        ("small", {"text": {"kind": "linked"}}, "makes queries from Rein's tokens, fusion.kind is mvfuser"),
        ("small", {**REIN, "enhancer": {}}, "linked has no text: set enhancer.kind to none"),
        ("small", {**REIN, "fusion": {"kind": "rein", "tokens": 18}}, "fusion.tokens 18: one for each of 19 classes"),
    ],
)
def test_changes_that_cannot_be_name_their_key(preset, changes, words):
    with pytest.raises(ConfigurationError, match=words):
        changed(preset, changes)
