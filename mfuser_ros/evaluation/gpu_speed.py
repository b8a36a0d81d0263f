"""How long the parts of a network take on a GPU: windows, stages, the scan, and the matmul peak beside them.

Everything is timed with CUDA events round replays of a recorded graph, but for the eager float32 path, which is timed
as it runs. Networks without weights of ours are measured with random ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints.store import load_model
from mfuser_ros.inference.segmenter import Precision, Segmenter
from mfuser_ros.network import fused
from mfuser_ros.network.config import PRESETS, WholeInput
from mfuser_ros.network.model import Encoded, MFuser, assemble
from mfuser_ros.network.optimize import optimize
from mfuser_ros.network.scan import mamba, selective_scan

Row = dict[str, Any]  # one measurement, as it goes to JSON

SCAN = (2594, 512, 16)  # tokens, channels, states of EVA02-L's fusers at 512x512
MATMUL = 8192


def network(name: str) -> tuple[MFuser, str]:
    """A model of models/ or of a path; for the name of a preset without weights one with random weights.

    Returns:
        The network, and what its weights are: "trained" or "random".
    """
    if name not in PRESETS or name == "small":
        return load_model(name)[0], "trained"
    torch.manual_seed(0)
    architecture = PRESETS[name]
    text: Any = architecture.text  # one of several kinds; those of the large presets have a text tower
    ids = [[1, *range(2 + word, text.tokens + 1 + word)] for word in range(architecture.classes)]
    return MFuser(architecture, ids), "random"


def segmenter(name: str, device: torch.device, precision: Precision) -> Segmenter:
    """A Segmenter of `network`, with the shipped vocabulary and no threshold."""
    return Segmenter(
        optimize(network(name)[0]), vocabulary.load(), name=name, sha256="", device=device, precision=precision,
        threshold=0, default_threshold=0, temperature=1, input_size=None,
    )  # fmt: skip


def window_rows(name: str, device: torch.device, precision: Precision, batches: list[int], repeats: int) -> list[Row]:
    """One forward pass over a batch of windows on the device: picture tensor in, scores out.

    The first row is the plain network in float32, kernel by kernel; the others are recorded graphs. `stage` rows split
    the time at batch 1 into encoding and decoding, and say what copies of a picture of the window's size cost.
    """
    architecture = PRESETS.get(name) or network(name)[0].architecture
    window = architecture.input
    side = (352, 640) if isinstance(window, WholeInput) else (window.crop, window.crop)
    size = f"{side[1]}x{side[0]}"
    weights = network_weights(name)
    common = {"model": name, "device": str(device), "device_name": torch.cuda.get_device_name(device), "size": size}
    plain = network(name)[0].to(device).eval().requires_grad_(False)
    picture = torch.rand(1, 3, *side, device=device) * 255
    of_plain = partial(_scores, plain, picture)
    with fused.plain(), torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            of_plain()
        flop = counter.get_total_flops()
        times = events(of_plain, max(repeats // 5, 5))
        reference = of_plain()
    rows: list[Row] = [
        {"what": "window", **common, "weights": weights, "batch": 1, "precision": "float32", "backend": "eager",
         "tflop": round(flop / 1e12, 4), "ms": times, "windows_per_s": round(1e3 / times["p50"], 2)}
    ]  # fmt: skip
    del plain, of_plain
    fast = segmenter(name, device, precision)
    peak = matmul_row(device)["tflop_per_s"]
    for batch in batches:
        torch.cuda.reset_peak_memory_stats(device)
        pictures = picture.expand(batch, -1, -1, -1).contiguous()
        run = recorded(partial(_scores, fast.model, pictures))
        times = events(run.replay, repeats)
        rate = 1e3 * batch / times["p50"]
        row = {
            "what": "window", **common, "weights": weights, "batch": batch, "precision": precision, "backend": "graph",
            "tflop": round(flop * batch / 1e12, 4), "ms": times, "windows_per_s": round(rate, 2),
            "share_of_matmul_peak": round(flop * rate / 1e12 / peak, 4),
            "peak_gpu_mb": round(torch.cuda.max_memory_allocated(device) / 1e6, 1),
        }  # fmt: skip
        if batch == 1:
            with torch.inference_mode():
                found = _scores(fast.model, picture)
            row["same_labels"] = round((found.argmax(1) == reference.argmax(1)).float().mean().item(), 5)
            row["largest_difference"] = round((found - reference).abs().max().item(), 5)
        rows.append(row)
    shared = {**common, "weights": weights, "batch": 1, "precision": precision, "backend": "graph"}
    encode = events(recorded(partial(_encoded, fast.model, picture)).replay, repeats)
    rows.append({"what": "stage", "stage": "encode and fuse", **shared, "ms": encode})
    towers = events(recorded(partial(_towers_alone, fast.model, picture)).replay, repeats)
    rows.append({"what": "stage", "stage": "towers without fusion", **shared, "ms": towers})
    return rows


def _scores(model: MFuser, pictures: Tensor) -> Tensor:
    return assemble(model.predict(pictures))


def network_weights(name: str) -> str:
    """What a network stands on: random weights for a preset that has none here, else trained ones."""
    return "random" if name in PRESETS and name != "small" else "trained"


def _encoded(model: MFuser, picture: Tensor) -> Encoded:
    return model.encode(picture)


def _towers_alone(model: MFuser, picture: Tensor) -> Encoded:
    fusion: torch.nn.ModuleDict = model.fusion
    model.fusion = torch.nn.ModuleDict()
    try:
        return _encoded(model, picture)
    finally:
        model.fusion = fusion


def scan_rows(device: torch.device, repeats: int) -> list[Row]:
    """The selective scan alone at the published sizes, ours and, where it can be imported, mamba-ssm's kernel."""
    return [row for batch in (1, 8) for row in _scan_rows_of(batch, device, repeats)]


def _scan_rows_of(batch: int, device: torch.device, repeats: int) -> list[Row]:
    length, channels, state = SCAN
    generator = torch.Generator(device).manual_seed(batch)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    x, delta = draw(batch, length, channels), torch.nn.functional.softplus(draw(batch, length, channels) - 4)
    A, D = -torch.exp(0.5 * draw(channels, state)), draw(channels)
    B, C = draw(batch, length, state), draw(batch, length, state)
    common: Row = {
        "what": "scan", "device": str(device), "device_name": torch.cuda.get_device_name(device),
        "size": f"{length}x{channels}x{state}", "batch": batch, "precision": "float32",
    }  # fmt: skip
    run = recorded(lambda: selective_scan(x, delta, A, B, C, D, backend="triton"))
    rows = [{**common, "backend": "triton", "ms": events(run.replay, repeats)}]
    kernel = mamba.extension()
    if kernel is not None:
        wide = [tensor.transpose(1, 2).contiguous() for tensor in (x, delta)]
        thin = [tensor.transpose(1, 2).unsqueeze(1).contiguous() for tensor in (B, C)]

        def theirs() -> Tensor:
            y: Tensor = kernel.fwd(*wide, A, *thin, D, None, None, False)[0]
            return y

        times = events(recorded(theirs).replay, repeats)
        with torch.inference_mode():
            ours, expected = selective_scan(x, delta, A, B, C, D, backend="triton").transpose(1, 2), theirs()
        difference = ((ours - expected).norm() / expected.norm()).item()
        rows.append({
            **common, "backend": "mamba_ssm", "ms": times, "relative_difference": float(f"{difference:.2e}")
        })  # fmt: skip
    return rows


def matmul_row(device: torch.device) -> Row:
    """What a large bfloat16 product reaches: the ceiling that shares are stated of."""
    a, b = (torch.randn(MATMUL, MATMUL, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = events(lambda: a @ b, 10)
    return {
        "what": "matmul", "device": str(device), "device_name": torch.cuda.get_device_name(device),
        "size": f"{MATMUL}^3", "batch": 1, "precision": "bfloat16", "backend": "cublas", "ms": times,
        "tflop_per_s": round(2 * MATMUL**3 / times["p50"] / 1e9, 1),
    }  # fmt: skip


def recorded(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """A CUDA graph of a call, after two ordinary ones."""
    with torch.inference_mode():
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own lack
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
    return graph


def events(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """p50, p95, p99 and min of the time of a call on the device, milliseconds."""
    for _ in range(3):
        call()
    pairs = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own lack
        start.record()
        call()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    times = [start.elapsed_time(end) for start, end in pairs]
    p50, p95, p99 = np.percentile(times, [50, 95, 99]).tolist()
    return {name: round(value, 4) for name, value in (("p50", p50), ("p95", p95), ("p99", p99), ("min", min(times)))}
