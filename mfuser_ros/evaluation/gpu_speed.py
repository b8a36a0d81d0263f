"""How long the parts of a network take on a GPU: windows, stages, the scan, and the matmul peak beside them.

Everything is timed with CUDA events round replays of a recorded graph, but for the eager float32 path, which is timed
as it runs. A preset without weights of ours is measured with random ones; its rows say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints.store import load_model
from mfuser_ros.evaluation.speed import Row, cpu_name, percentiles
from mfuser_ros.inference.engine import speed_up
from mfuser_ros.inference.segmenter import DTYPES, Precision, Segmenter
from mfuser_ros.network import fused
from mfuser_ros.network.config import PRESETS, WholeInput
from mfuser_ros.network.model import Encoded, MFuser, assemble
from mfuser_ros.network.optimize import optimize
from mfuser_ros.network.precision import lower
from mfuser_ros.network.scan import chosen, mamba, selective_scan

SCAN = (2594, 512, 16)  # tokens, channels, states of EVA02-L's fusers at 512x512
MATMUL = 8192


@dataclass(frozen=True)
class Subject:
    """A network to be measured."""

    name: str
    weights: str  # trained or random
    make: Callable[[], MFuser]

    def side(self) -> tuple[int, int]:
        """Height and width of what one forward pass sees."""
        window = self.make().architecture.input
        return (352, 640) if isinstance(window, WholeInput) else (window.crop, window.crop)


def is_without_weights(name: str) -> bool:
    """Whether a name stands for a preset that has no weights here."""
    return name in PRESETS and name != "small"


def subject(name: str) -> Subject:
    """A model of models/ or of a path; for the name of a preset without weights one with random weights."""
    if is_without_weights(name):
        return Subject(name, "random", partial(_random_network, name))
    return Subject(name, "trained", lambda: load_model(name)[0])


def _random_network(name: str) -> MFuser:
    torch.manual_seed(0)
    architecture = PRESETS[name]
    text: Any = architecture.text  # one of several kinds; those of the large presets have a text tower
    ids = [[1, *range(2 + word, text.tokens + 1 + word)] for word in range(architecture.classes)]
    return MFuser(architecture, ids)


def random_segmenter(name: str, device: torch.device, precision: Precision) -> Segmenter:
    """A Segmenter of a preset with random weights, with the shipped vocabulary and no threshold."""
    return Segmenter(
        optimize(_random_network(name)), vocabulary.load(), name=name, sha256="", device=device, precision=precision,
        threshold=0, default_threshold=0, temperature=1, input_size=None,
    )  # fmt: skip


def window_rows(
    what: Subject, device: torch.device, precision: Precision, batches: Sequence[int], repeats: int
) -> list[Row]:
    """One forward pass over a batch of windows on the device: picture tensor in, scores out; then its stages.

    The first row is the plain network in float32 with the compiled scan, kernel by kernel, as it ran before there was
    an engine. The others are recorded graphs, with how many times they are faster per window and how they agree with
    it. FLOPs are those of the plain network's products; their share is of the matmul peak that is measured beside.
    """
    height, width = what.side()
    picture = 255 * torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)
    common = {"model": what.name, **_names(device), "size": f"{width}x{height}", "weights": what.weights}
    peak_row = matmul_row(device)
    flop, plain, reference = _plain(what.make().to(device), picture, max(repeats // 5, 3))
    rate = 1e3 / plain["p50"]
    rows: list[Row] = [
        peak_row,
        {"what": "window", **common, "batch": 1, "precision": "float32", "backend": "eager", "ms": plain,
         "windows_per_s": round(rate, 2), "tflop": round(flop / 1e12, 6)},
    ]  # fmt: skip
    model = fast_network(what, device, precision)
    for batch in batches:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        pictures = picture.expand(batch, -1, -1, -1).contiguous()
        times = timed(recorded(partial(_scores, model, pictures), device), repeats, device)
        per_s = 1e3 * batch / times["p50"]
        row = {
            "what": "window", **common, "batch": batch, "precision": precision, "backend": _backend(device),
            "ms": times, "windows_per_s": round(per_s, 2), "times_eager": round(per_s / rate, 2),
            "tflop": round(flop * batch / 1e12, 6),
            "share_of_matmul_peak": round(flop * per_s / 1e12 / peak_row["tflop_per_s"], 4), **_memory(device),
        }  # fmt: skip
        if batch == 1:
            with torch.inference_mode():
                found = _scores(model, picture)
            row["same_labels"] = round((found.argmax(1) == reference.argmax(1)).float().mean().item(), 5)
            row["largest_difference"] = round((found - reference).abs().max().item(), 5)
        rows.append(row)
    shared = {**common, "batch": 1, "precision": precision, "backend": _backend(device)}
    for stage, call in _stages(model, picture).items():
        rows.append({"what": "stage", "stage": stage, **shared, "ms": timed(recorded(call, device), repeats, device)})
    return rows


def fast_network(what: Subject, device: torch.device, precision: Precision) -> MFuser:
    """The network as an engine runs it."""
    model = optimize(what.make()).to(device).requires_grad_(requires_grad=False)
    if precision != "float32":
        lower(model, DTYPES[precision])
    speed_up(model, device, float8=precision == "float8")
    return model


def _plain(model: MFuser, picture: Tensor, repeats: int) -> tuple[int, dict[str, float], Tensor]:
    """FLOPs, times and scores of the network as it is."""
    model.eval().requires_grad_(requires_grad=False)
    call = partial(_scores, model, picture)
    with fused.plain(but_for_scan=True), torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            scores = call()
        return counter.get_total_flops(), timed(call, repeats, picture.device), scores


def _scores(model: MFuser, pictures: Tensor) -> Tensor:
    return assemble(model.predict(pictures))


def _stages(model: MFuser, picture: Tensor) -> dict[str, Callable[[], object]]:
    """Parts of a pass by name: copies of a picture and its answer, encoding with and without fusion, decoding."""
    height, width = picture.shape[-2:]
    on_gpu = picture.is_cuda
    came = torch.zeros(height, width, 3, dtype=torch.uint8, pin_memory=on_gpu)
    goes = torch.zeros(3, height, width, dtype=torch.uint8, pin_memory=on_gpu)
    here_in, here_out = came.to(picture.device), goes.to(picture.device)
    fusion: list[Callable[[], object]] = []
    hooks = [
        site.register_forward_hook(lambda site, given, _: fusion.append(partial(site, *given)))
        for site in model.fusion.values()
    ]
    with torch.inference_mode():
        encoded = model.encode(picture)
    for hook in hooks:
        hook.remove()
    return {
        "copy in": lambda: here_in.copy_(came, non_blocking=True),
        "encode and fuse": partial(model.encode, picture),
        "encode": partial(_towers_alone, model, picture),
        "fuse": lambda: [site() for site in fusion],
        "decode": lambda: assemble(model.decode(encoded)),
        "copy out": lambda: goes.copy_(here_out, non_blocking=True),
    }


def _towers_alone(model: MFuser, picture: Tensor) -> Encoded:
    fusion: torch.nn.ModuleDict = model.fusion
    model.fusion = torch.nn.ModuleDict()
    try:
        return model.encode(picture)
    finally:
        model.fusion = fusion


def scan_rows(device: torch.device, repeats: int, size: tuple[int, int, int] = SCAN) -> list[Row]:
    """The selective scan alone at the published sizes, ours and, where it is built, mamba-ssm's kernel in the same run.

    Args:
        device: where it runs.
        repeats: timed calls.
        size: tokens, channels, states.
    """
    return [row for batch in (1, 8) for row in _scan_rows_of(batch, device, repeats, size)]


def _scan_rows_of(batch: int, device: torch.device, repeats: int, size: tuple[int, int, int]) -> list[Row]:
    length, channels, state = size
    generator = torch.Generator().manual_seed(batch)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    x, delta = draw(batch, length, channels), torch.nn.functional.softplus(draw(batch, length, channels) - 4)
    A, D = -torch.exp(0.5 * draw(channels, state)), draw(channels)
    B, C = draw(batch, length, state), draw(batch, length, state)
    ours = chosen(x, state)
    common: Row = {
        "what": "scan", **_names(device), "size": f"{length}x{channels}x{state}", "batch": batch,
        "precision": "float32",
    }  # fmt: skip

    def run() -> Tensor:
        return selective_scan(x, delta, A, B, C, D, backend=ours)

    rows = [{**common, "backend": ours, "ms": timed(recorded(run, device), repeats, device)}]
    kernel = mamba.extension() if device.type == "cuda" else None
    if kernel is not None:
        # in its own layout, so that no transposition of ours counts against it
        wide = [tensor.transpose(1, 2).contiguous() for tensor in (x, delta)]
        thin = [tensor.transpose(1, 2).unsqueeze(1).contiguous() for tensor in (B, C)]

        def theirs() -> Tensor:
            y: Tensor = kernel.fwd(*wide, A, *thin, D, None, None, False)[0]
            return y

        times = timed(recorded(theirs, device), repeats, device)
        with torch.inference_mode():
            found, expected = run().transpose(1, 2), theirs()
        difference = ((found - expected).norm() / expected.norm()).item()
        rows.append({**common, "backend": "mamba_ssm", "ms": times, "relative_difference": float(f"{difference:.2e}")})
    return rows


def matmul_row(device: torch.device) -> Row:
    """What a large bfloat16 product reaches: the ceiling that shares are stated of."""
    side = MATMUL if device.type == "cuda" else MATMUL // 32
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = timed(lambda: a @ b, 10, device)
    return {
        "what": "matmul", **_names(device), "size": f"{side}x{side}x{side}", "batch": 1, "precision": "bfloat16",
        "backend": "torch", "ms": times, "tflop_per_s": round(2 * side**3 / times["p50"] / 1e9, 4),
    }  # fmt: skip


def recorded(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Replays a CUDA graph of a call, recorded after two ordinary ones; on a CPU the call itself."""

    def ordinary() -> object:
        with torch.inference_mode():
            return call()

    if device.type != "cuda":
        return ordinary
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's own lack
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(2):
            ordinary()
    torch.cuda.current_stream(device).wait_stream(stream)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ordinary()
    return graph.replay


def timed(call: Callable[[], object], repeats: int, device: torch.device) -> dict[str, float]:
    """p50, p95, p99 and min of a call, milliseconds: between CUDA events on a GPU, of wall time on a CPU."""
    for _ in range(3):
        call()
    if device.type != "cuda":
        spent = []
        for _ in range(repeats):
            begin = time.perf_counter()
            call()
            spent.append((time.perf_counter() - begin) * 1e3)
        return percentiles(spent)
    pairs = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own lack
        start.record()
        call()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize(device)
    return percentiles([start.elapsed_time(end) for start, end in pairs])


def _names(device: torch.device) -> Row:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {"device": str(device), "device_name": name}


def _backend(device: torch.device) -> str:
    return "graph" if device.type == "cuda" else "eager"


def _memory(device: torch.device) -> Row:
    return {"peak_gpu_mb": round(torch.cuda.max_memory_allocated(device) / 1e6, 1)} if device.type == "cuda" else {}
