"""Speed and mIoU of `small` on this CPU by engine and arithmetic; see docs/export.md.

mfuser export small.onnx --size 640x352
python docs/cpu_engines.py small.onnx --data DATA --work WORK --json docs/benchmarks/cpu_engines.json

Needs onnx and onnxruntime, and openvino for its rows. Every engine sees the same pictures, stretched to the size of
the file. The engines take turns, round by round, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime import quantization

import mfuser_ros
from mfuser_ros.commands.bench import environment
from mfuser_ros.datasets.config import load_config
from mfuser_ros.datasets.opening import Dataset, open_split
from mfuser_ros.datasets.sample import Sample
from mfuser_ros.evaluation.dataset import evaluate
from mfuser_ros.inference import Segmenter
from mfuser_ros.inference.enlarge import best_class, probabilities
from mfuser_ros.network.model import assemble

Engine = Callable[[np.ndarray], np.ndarray]  # (1, H, W, 3) uint8 -> (1, K, H / 4, W / 4) float32
SETS = ("cityscapes256/val", "camvid/dusk")
CALIBRATION = 32  # pictures


class _Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped
    """Pictures of training, spread over the set."""

    def __init__(self, dataset: Dataset, segmenter: Segmenter, size: tuple[int, int]) -> None:
        chosen = np.linspace(0, len(dataset) - 1, CALIBRATION).astype(int)
        self._feeds = iter([{"picture": _stretched(segmenter, dataset[int(i)].picture, size)} for i in chosen])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _stretched(segmenter: Segmenter, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.ascontiguousarray(segmenter.prepare([picture], size).permute(0, 2, 3, 1).byte().numpy())


def of_torch(segmenter: Segmenter, dtype: torch.dtype = torch.float32) -> Engine:
    """What the Segmenter does today, and the same under autocast."""

    def run(pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
            scores = assemble(segmenter.model.predict(batch))
            return np.asarray(probabilities(scores.float(), segmenter.temperature).numpy())

    return run


def of_onnxruntime(path: Path) -> Engine:
    """An ONNX file by ONNX Runtime, with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads would count as work
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pictures: np.asarray(session.run(None, {"picture": pictures})[0])


def of_openvino(path: Path, precision: str) -> Engine:
    """An ONNX file by OpenVINO; precision f32 or bf16."""
    import openvino  # noqa: PLC0415  # not one of our extras

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda pictures: np.array(compiled(pictures)[0])


def quantised(path: Path, folder: Path, calibration: _Calibration) -> dict[str, Path]:
    """The towers' convolutions in static int8 (QDQ), the linear layers in dynamic int8."""
    nodes = onnx.load(path).graph.node
    towers = [
        node.name
        for node in nodes
        if node.op_type == "Conv" and any(".vfm.net." in name or ".vlm.net." in name for name in node.input)
    ]
    static, dynamic = folder / "towers_int8.onnx", folder / "linear_int8.onnx"
    if static.exists() and dynamic.exists():
        return {"towers": static, "linear": dynamic}
    quantization.quantize_static(
        path,
        static,
        calibration,
        quant_format=quantization.QuantFormat.QDQ,
        nodes_to_quantize=towers,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    quantization.quantize_dynamic(path, dynamic, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True)
    return {"towers": static, "linear": dynamic}


def measure(engines: dict[str, Engine], picture: np.ndarray, camera: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Milliseconds of the network, and of what follows until labels of the camera's size are there; in turns.

    `wall` is what a clock shows; `cpu` the time of all threads on all cores, which hardly changes where other processes
    take their share of the machine.
    """
    calls: dict[str, Callable[[], object]] = {name: partial(engine, picture) for name, engine in engines.items()}
    answer = torch.from_numpy(next(iter(engines.values()))(picture)[0])
    calls["enlarge"] = partial(best_class, answer, *camera)
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        call()
        print(name, "is ready", flush=True)
    for _ in range(rounds):
        for name, call in calls.items():
            begin, used = time.perf_counter(), time.process_time()
            call()
            wall[name].append((time.perf_counter() - begin) * 1e3)
            cpu[name].append((time.process_time() - used) * 1e3)
    return {name: {"wall": _summary(wall[name]), "cpu": _summary(cpu[name])} for name in calls}


def _summary(values: list[float]) -> dict[str, float]:
    return {"p50": round(statistics.median(values), 1), "min": round(min(values), 1)}


def score(
    engine: Engine, segmenter: Segmenter, source: str, data: Path, size: tuple[int, int], count: int
) -> dict[str, Any]:
    """mIoU on `count` pictures spread over a set."""
    name, _, split = source.rpartition("/")
    config = load_config(name)
    dataset = open_split(config, split, data)
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
    samples: Iterable[Sample] = (dataset[int(index)] for index in chosen)

    def infer(pictures: list[np.ndarray], label_size: tuple[int, int]) -> torch.Tensor:
        answers = [torch.from_numpy(engine(_stretched(segmenter, picture, size))) for picture in pictures]
        return torch.nn.functional.interpolate(torch.cat(answers), label_size, mode="bilinear")

    result = evaluate(samples, config, infer, batch=1)
    miou = result.confusion.scores().miou
    assert miou is not None
    return {"miou": round(100 * miou, 2), "pictures": result.frames}


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="of `mfuser export`, batch 1, output probability")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--pictures", type=int, default=100, help="of each set")
    parser.add_argument("--work", type=Path, required=True, help="folder for the files in int8; kept for the next time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="names of engines; left out: all that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    session = onnxruntime.InferenceSession(str(arguments.file), providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    size = (int(properties["height"]), int(properties["width"]))
    segmenter = mfuser_ros.load(properties["name"], device="cpu")
    train = open_split(load_config("cityscapes256"), "train", arguments.data)
    arguments.work.mkdir(parents=True, exist_ok=True)
    files = quantised(arguments.file, arguments.work, _Calibration(train, segmenter, size))
    makers: dict[str, Callable[[], Engine]] = {
        "torch float32": lambda: of_torch(segmenter),
        "torch bfloat16": lambda: of_torch(segmenter, torch.bfloat16),
        "onnxruntime float32": lambda: of_onnxruntime(arguments.file),
        "onnxruntime int8 towers": lambda: of_onnxruntime(files["towers"]),
        "onnxruntime int8 linear": lambda: of_onnxruntime(files["linear"]),
        "openvino float32": lambda: of_openvino(arguments.file, "f32"),
        "openvino bfloat16": lambda: of_openvino(arguments.file, "bf16"),
        "openvino int8 towers": lambda: of_openvino(files["towers"], "f32"),
        "openvino int8 towers, bfloat16": lambda: of_openvino(files["towers"], "bf16"),
    }
    engines, failed = {}, {}
    for name, make in makers.items():
        if arguments.only and name not in arguments.only:
            continue
        try:
            engines[name] = make()
        except (ImportError, RuntimeError) as error:
            failed[name] = " ".join(str(error).split())[:200]
    picture = _stretched(segmenter, train[0].picture, size)
    result: dict[str, Any] = {
        "version": 1,
        "environment": {**environment(), "onnxruntime": onnxruntime.__version__, "threads": torch.get_num_threads()},
        "size": list(size),
        "rounds": arguments.rounds,
        "ms": measure(engines, picture, (720, 1280), arguments.rounds),
        "failed": failed,
        "load_average_after": [round(value, 2) for value in os.getloadavg()],
        "scores": {},
    }
    print(json.dumps(result["ms"], indent=1), failed, flush=True)
    for source in SETS:
        for name, engine in engines.items():
            scored = score(engine, segmenter, source, arguments.data, size, arguments.pictures)
            result["scores"].setdefault(name, {})[source] = scored
            print(source, name, scored, flush=True)
            arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
