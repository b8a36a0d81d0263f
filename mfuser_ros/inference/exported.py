"""A file of `mfuser export` run by OpenVINO on the CPU, in the place of torch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mfuser_ros.errors import CheckpointError, ConfigurationError

Size = tuple[int, int]  # height, width


class ExportedNetwork:
    """From pictures to probabilities as the exported file says; one size, one batch.

    Attributes:
        size: height and width that it sees.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, sha256: str, classes: Sequence[str], precision: str = "float32"
    ) -> None:
        """Read and compile.

        Args:
            path: of the file.
            sha256: of the weights that it must have been made from.
            classes: that it must give, in this order.
            precision: float32, the numbers of torch; or bfloat16, which is faster where the processor has it.

        Raises:
            ConfigurationError: openvino is not installed.
            CheckpointError: the file is missing, is none of ours, or belongs to other weights or classes.
        """
        try:
            import openvino  # noqa: PLC0415  # optional extra
        except ImportError as error:
            raise ConfigurationError(f"{path}: needs openvino: pip install 'mfuser_ros[openvino]'") from error
        if not Path(path).is_file():
            raise CheckpointError(f"{path}: no such file: write it with `mfuser export`")
        core = openvino.Core()
        try:
            model = core.read_model(os.fspath(path))
        except RuntimeError as error:
            raise CheckpointError(f"{path}: is no ONNX file that can be read: write it with `mfuser export`") from error
        stated = model.get_rt_info("framework").value if "framework" in model.get_rt_info() else {}
        if stated.get("output") != "probability":
            raise CheckpointError(f"{path}: gives no probabilities: write it with `mfuser export --output probability`")
        if stated["sha256"] != sha256:
            raise CheckpointError(
                f"{path}: was made from weights {stated['sha256'][:12]}..., not {sha256[:12]}...: export again"
            )
        if json.loads(stated["classes"]) != list(classes):
            raise CheckpointError(f"{path}: was made for other classes: export again with the same --vocabulary")
        self._batch, height, width, _ = model.inputs[0].get_shape()
        self.size: Size = (height, width)
        hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._network = core.compile_model(model, "CPU", settings)

    def __call__(self, batch: Tensor) -> Tensor:
        """(n, 3, height, width) RGB 0..255 of `size` -> (n, K, h, w) probabilities."""
        pictures = batch.permute(0, 2, 3, 1).byte().numpy()
        count = len(pictures)
        filled = (
            np.arange(-(-count // self._batch) * self._batch) % count
        )  # the first again in a batch that is not full
        answers = [
            np.array(self._network(np.ascontiguousarray(pictures[part]))[0]) for part in filled.reshape(-1, self._batch)
        ]
        return torch.from_numpy(np.concatenate(answers)[:count])
