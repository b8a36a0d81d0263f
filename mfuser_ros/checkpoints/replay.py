"""Run our network on the inputs of a golden, with its weights taken through the key map.

Each function takes a golden, of any variant unless its name says which, and returns what it computed under the golden's
own keys: results, gradients, and those intermediates that are the input or output of one of our modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.checkpoints import rebuild
from mfuser_ros.checkpoints.golden import Golden
from mfuser_ros.checkpoints.recording import Record, recorded
from mfuser_ros.errors import CheckpointError
from mfuser_ros.network.config import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    EnhancerConfig,
    TowerConfig,
)
from mfuser_ros.network.deformable import DeformableAttention
from mfuser_ros.network.mask_decoder import Prediction, assemble
from mfuser_ros.network.mtenhancer import MTEnhancer
from mfuser_ros.network.mvfuser import MVFuser
from mfuser_ros.network.towers import build_tower

Computed = dict[str, Tensor]
Slide = Callable[[Callable[[Tensor], Tensor], Tensor, int, int], Tensor]
Starts = Callable[[int, int, int], list[int]]


def mvfuser(golden: Golden) -> Computed:
    """`unit_mvfuser`: one fuser forward and back."""
    x = _input(golden, "x")
    fuser = MVFuser(x.shape[-1], state=golden.sizes["d_state"]).eval()
    names = rebuild.fill(fuser, golden, rebuild.FUSER)
    with recorded({"in_proj": fuser.in_proj, "x_proj": fuser.x_proj, "out_proj": fuser.out_proj}) as seen:
        y = fuser(x)
    y.backward(golden["in.gout"])
    return {
        "out.y": y,
        "mid.in_proj": seen["in_proj"].output,
        "mid.x_proj": seen["x_proj"].output.flatten(0, 1),
        "mid.norm_out": seen["out_proj"].inputs[0],
        **_gradients(golden, fuser, names, x=x),
    }


def context_decoder(golden: Golden) -> Computed:
    """`unit_context_decoder`: the text enhancer without its gain and residual, forward and back."""
    text, visual = _input(golden, "text"), _input(golden, "visual")
    sizes = golden.sizes
    config = EnhancerConfig(
        width=sizes["transformer_width"], heads=sizes["transformer_heads"], layers=sizes["transformer_layers"]
    )
    enhancer = MTEnhancer(config, sizes["visual_dim"]).eval()
    names = rebuild.fill(enhancer, golden, rebuild.ENHANCER, given={"gamma": torch.ones(sizes["visual_dim"])})
    modules: dict[str, nn.Module] = {
        "memory": enhancer.memory_proj,
        "text": enhancer.text_proj,
        "out": enhancer.out_proj,
    }
    for index, layer in enumerate(enhancer.layers):
        modules |= {f"l{index}.fuser": layer.get_submodule("mvfuser"), f"l{index}": layer}
    with recorded(modules) as seen:
        enhancer(text, visual)
    y = seen["out"].output
    torch.autograd.backward(y, golden["in.gout"])
    computed = {"out.y": y, "mid.memory": seen["memory"].output, "mid.text_proj": seen["text"].output}
    for index in range(len(enhancer.layers)):
        computed |= {
            f"mid.l{index}.mamba_in": seen[f"l{index}.fuser"].inputs[0],
            f"mid.l{index}.mamba_out": seen[f"l{index}.fuser"].output,
            f"mid.l{index}.out": seen[f"l{index}"].output,
        }
    return _held(golden, computed) | _gradients(golden, enhancer, names, text=text, visual=visual)


def ms_deform_attn(golden: Golden) -> Computed:
    """`unit_ms_deform_attn`: deformable attention with its residual, forward and back."""
    sizes = golden.sizes
    query = _input(golden, "query")  # (tokens, batch, width), as all tensors of this golden
    reference = golden["in.reference_points"]
    if bool(golden["in.key_padding_mask"].any()) or bool((reference != reference[:1, :, :1]).any()):
        raise CheckpointError(f"golden {golden.name}: masks or shifts levels, which the network never does")
    attention = DeformableAttention(sizes["embed_dims"], sizes["num_heads"], sizes["num_levels"], sizes["num_points"])
    names = rebuild.fill(attention, golden, rebuild.DEFORMABLE)
    levels = tuple((height, width) for height, width in golden["in.spatial_shapes"].tolist())
    modules = {"value": attention.value_proj, "output": attention.output_proj}
    with recorded(modules) as seen:
        value = query.transpose(0, 1)
        attended = attention(value + golden["in.query_pos"].transpose(0, 1), value, reference[0, :, 0], levels)
    y = query + attended.transpose(0, 1)
    y.backward(golden["in.gout"])
    return {
        "out.y": y,
        "mid.value": seen["value"].output.reshape(golden["mid.value"].shape),
        "mid.core": seen["output"].inputs[0],
        **_gradients(golden, attention, names, query=query),
    }


def pixel_decoder(golden: Golden) -> Computed:
    """`unit_pixel_decoder`: pyramid and text to memory and mask features, forward and back to the inputs."""
    pyramid = [_input(golden, f"feat{level}") for level in range(4)]
    texts = _input(golden, "texts")
    decoder, _ = rebuild.head(golden, classes=golden.sizes["num_text_embeds"])
    rebuild.fill(decoder, golden, rebuild.PIXEL_DECODER)
    modules = {"text": decoder.text_proj, "memory": decoder.post_norm}
    modules |= {f"layer{index}": layer for index, layer in enumerate(decoder.layers)}
    with recorded(modules) as seen:
        features = decoder(pyramid, texts)
    outputs = [features.mask_features, *features.memory]
    torch.autograd.backward(outputs, [golden["in.gout_mask"], *(golden[f"in.gout_ms{level}"] for level in range(3))])
    computed = {
        "out.mask_features": features.mask_features,
        **{f"out.multi_scale.{level}": memory for level, memory in enumerate(features.memory)},
        "mid.query": seen["layer0"].inputs[0].transpose(0, 1),
        "mid.key": seen["text"].output.transpose(0, 1),
        "mid.memory": seen["memory"].output.transpose(0, 1),
    }
    for index in range(len(decoder.layers)):
        computed[f"mid.encoder_layer.{index}"] = seen[f"layer{index}"].output[0].transpose(0, 1)
    for level, feature in enumerate(pyramid):
        computed[f"grad_in.feat{level}"] = _gradient(feature)
    return computed | {"grad_in.texts": _gradient(texts)}


@torch.no_grad()
def tqdm_head(golden: Golden) -> Computed:
    """`unit_tqdm_head`: both decoders, every prediction, the assembled scores."""
    pixels, masks = rebuild.head(golden, classes=golden.sizes["classes"])
    both = nn.ModuleDict({"pixel_decoder": pixels, "mask_decoder": masks})
    rebuild.fill(both, golden, rebuild.HEAD)
    modules: dict[str, nn.Module] = {"query.0": masks.text_proj}
    modules |= {f"query.{index + 1}": layer for index, layer in enumerate(masks.layers)}
    texts = golden["in.texts"]
    with recorded(modules) as seen:
        features = pixels([golden[f"in.feat{level}"] for level in range(4)], texts)
        predictions = masks(features, texts, every=True)
    computed = {
        "out.mask_features": features.mask_features,
        "out.seg_mask": assemble(predictions[-1]),
        **_predictions(predictions, "out"),
        **{f"mid.{key}": record.output.transpose(0, 1) for key, record in seen.items()},
        "mid.decoder_key.0": seen["query.1"].inputs[3].transpose(0, 1),
        **_attention_masks([record for key, record in seen.items() if key != "query.0"]),
    }
    return _held(golden, computed)


def text_encoder(golden: Golden) -> Computed:
    """`unit_text_encoder_*`: token ids and contexts to embeddings, and back to the contexts."""
    encoder = rebuild.text_encoder(golden)
    modules = {str(index): block for index, block in enumerate(encoder.transformer.resblocks)}
    with recorded(modules) as seen:
        text = encoder()
    text.backward(golden["in.gout"].reshape(text.shape))
    return {
        "out.text": text.reshape(golden["out.text"].shape),  # some were recorded with a batch axis
        "mid.embed": seen["0"].inputs[0],
        **{f"mid.block.{index}": record.output for index, record in seen.items()},
        "grad_in.contexts": _gradient(encoder.contexts),
    }


@torch.no_grad()
def extract_feats(golden: Golden) -> Computed:
    """`unit_extract_feats_*`: both towers with their fusers, block by block, and the pyramid."""
    network = rebuild.mfuser(golden)
    modules: dict[str, nn.Module] = {"neck": network.neck}
    for index in range(len(network.vfm.widths)):
        modules[f"dino_block.{index}"] = network.vfm.net.blocks[index]
        modules[f"vlm_block.{index}"] = network.vlm.net.blocks[index]
        modules[f"fuser.{index}"] = network.fusion[str(index)].get_submodule("mvfuser")
    with recorded(modules) as seen:
        encoded = network.encode(picture_of(golden["in.img"]))
    computed = {f"out.feat.{level}": feature for level, feature in enumerate(encoded.pyramid)}
    assert encoded.picture is not None  # published networks know text
    computed |= _joint(encoded.picture, encoded.grid)
    computed |= {f"mid.tap.{level}": seen["neck"].inputs[0][tap] for level, tap in enumerate(network.neck.taps)}
    computed["mid.dino_tokens0"] = seen["dino_block.0"].inputs[0]
    computed["mid.vlm_tokens0"] = seen["vlm_block.0"].inputs[0]
    for index in range(len(network.vfm.widths)):
        computed[f"mid.dino_block.{index}"] = seen[f"dino_block.{index}"].output
        computed[f"mid.vlm_block.{index}"] = seen[f"vlm_block.{index}"].output
        computed[f"mid.fuser_in.{index}"] = seen[f"fuser.{index}"].inputs[0]
        computed[f"mid.fuser_out.{index}"] = seen[f"fuser.{index}"].output
    return _held(golden, computed)


@torch.no_grad()
def whole_model(golden: Golden) -> Computed:
    """`model_*_tiny`: the whole network on one crop."""
    network = rebuild.mfuser(golden)
    image = golden["in.img"]
    with recorded({str(index): layer for index, layer in enumerate(network.mask_decoder.layers)}) as seen:
        output = network(picture_of(image))
    assert output.score_map is not None  # published networks know text
    assert output.encoded.picture is not None
    scores = assemble(output.predictions[-1])
    computed = {
        "out.logits": F.interpolate(scores, image.shape[-2:], mode="bilinear", align_corners=False),
        "out.score_map": output.score_map,
        "out.text_raw": output.text.reshape(golden["out.text_raw"].shape),  # some were recorded with a batch axis
        "out.text_enhanced": output.queries,
        **_joint(output.encoded.picture, output.encoded.grid),
        "mid.mask_features": output.features.mask_features,
        **_predictions(output.predictions, "mid"),
        **_attention_masks(list(seen.values())),
    }
    return _held(golden, computed)


@torch.no_grad()
def slide_eva(golden: Golden, slide: Slide, starts: Starts) -> Computed:
    """`unit_slide_eva`: sliding windows over a picture larger than the crop, with the window functions given."""
    sizes = golden.sizes
    network = rebuild.mfuser(golden)
    picture = picture_of(golden["in.img"])
    (crop, crop_width), (stride, stride_width) = sizes["crop"], sizes["stride"]
    if crop != crop_width or stride != stride_width:
        raise CheckpointError(f"golden {golden.name}: its windows or strides are not square, ours always are")
    scores = slide(lambda windows: assemble(network.predict(windows)), picture, crop, stride)
    original = F.interpolate(scores, tuple(sizes["ori"]), mode="bilinear", align_corners=False)
    probability = original.softmax(1)
    height, width = picture.shape[-2:]
    windows = [(y, x, y + crop, x + crop) for y in starts(height, crop, stride) for x in starts(width, crop, stride)]
    return {
        "out.logits_input_size_every4": scores[..., ::4, ::4],
        "out.logits_ori_size": original,
        "out.argmax": probability.argmax(1),
        "out.prob_checksum": probability.sum((-2, -1)),
        "mid.windows_y1x1y2x2": torch.tensor(windows),
    }


@torch.no_grad()
def normalise(golden: Golden) -> Computed:
    """`unit_normalise`: what each tower of each published variant receives."""
    rgb = golden["in.rgb_uint8"].float()
    computed = {"out.network_input": _normalised(rgb, CLIP_MEAN, CLIP_STD)}
    vlm = {"eva": (CLIP_MEAN, CLIP_STD), "clip": (CLIP_MEAN, CLIP_STD), "siglip": (HALF, HALF)}
    for variant, statistics in vlm.items():
        computed[f"out.{variant}.vlm_input"] = _normalised(rgb, *statistics)
        computed[f"out.{variant}.dino_input"] = _normalised(rgb, IMAGENET_MEAN, IMAGENET_STD)
    return computed


def _input(golden: Golden, name: str) -> Tensor:
    """An input that gradients are wanted for."""
    return golden[f"in.{name}"].clone().requires_grad_()


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _gradients(golden: Golden, module: nn.Module, names: Mapping[str, str], **inputs: Tensor) -> Computed:
    computed = {f"grad.{theirs}": _gradient(module.get_parameter(ours)) for theirs, ours in names.items()}
    return _held(golden, computed | {f"grad_in.{name}": _gradient(tensor) for name, tensor in inputs.items()})


def _held(golden: Golden, computed: Computed) -> Computed:
    """Without what the golden did not record."""
    return {key: value for key, value in computed.items() if key in golden.tensors}


def picture_of(normalised: Tensor) -> Tensor:
    """CLIP-normalised (batch, 3, H, W), as goldens hold it -> RGB 0..255, which is what our towers take."""
    return normalised * torch.tensor(CLIP_STD).view(-1, 1, 1) + torch.tensor(CLIP_MEAN).view(-1, 1, 1)


def _normalised(rgb: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    tower = TowerConfig(layout="mobilenetv2", model="mobilenetv2_100", mean=mean, std=std)
    return build_tower(tower).normalise(rgb)


def _joint(picture: Tensor, grid: tuple[int, int]) -> Computed:
    places = picture[:, 1:].transpose(1, 2).reshape(len(picture), -1, *grid)
    return {"out.global": picture[:, :1], "out.visual": places}


def _predictions(predictions: Sequence[Prediction], prefix: str) -> Computed:
    computed: Computed = {}
    for index, prediction in enumerate(predictions):
        computed[f"{prefix}.cls.{index}"] = prediction.class_logits
        computed[f"{prefix}.mask.{index}"] = prediction.mask_logits
    return computed


def _attention_masks(layers: Sequence[Record]) -> Computed:
    """The masks that the layers of the query decoder were given, (batch, K, tokens), once for all heads."""
    return {f"mid.attn_mask.{index}": layer.inputs[4] for index, layer in enumerate(layers)}
