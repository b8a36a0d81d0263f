"""Several trainings side by side on one GPU, recorded as one CUDA graph with a branch for each.

The kernels of one step of a small network are too small to fill a large GPU; those of several networks run in each
other's gaps. All rows share a clock: the schedule ends for all of them at the same time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mfuser_ros.errors import DeviceError
from mfuser_ros.training.config import SourceConfig, TrainConfig
from mfuser_ros.training.loop import Limits, save_average
from mfuser_ros.training.optimizer import rate_share
from mfuser_ros.training.sources import Source, load_source
from mfuser_ros.training.start import initial_model
from mfuser_ros.training.step import Step


@dataclass(frozen=True)
class Row:
    """One training: its name, which is the name of its folder, and its recipe."""

    name: str
    recipe: TrainConfig


def train_together(
    rows: Sequence[Row],
    *,
    data: Path,
    towers: Path,
    out: Path,
    device: torch.device,
    limits: Limits,
    report: Callable[[str], None] = print,
) -> None:
    """Train all rows; each leaves PRESET.safetensors, PRESET.yaml and log.jsonl in a folder of its own under `out`.

    Args:
        rows: recipes with one `log_steps`, `save_minutes`, warm-up and power; those of the first row count for all.
        data: folder of the data sets; a source that several rows name is loaded once.
        towers: folder of the pretrained towers.
        out: folder of the results.
        device: a GPU; on a CPU the rows take turns.
        limits: steps and minutes of every row.
        report: called with a line every `log_steps`.

    Raises:
        DatasetError, CheckpointError, ConfigurationError, DeviceError: see the message.
    """
    sources: dict[str, Source] = {}
    steps = []
    for row in rows:
        recipe = row.recipe
        model = initial_model(recipe, towers).to(device)
        if recipe.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own lack
        power = recipe.losses.frequency_power
        for source in recipe.sources:
            if (key := _key(source, power)) not in sources:
                sources[key] = load_source(source, data, device, frequency_power=power)
        steps.append(Step(model, [sources[_key(source, power)] for source in recipe.sources], recipe, device))
    together = Together(steps, [row.recipe.seed for row in rows])
    first = rows[0].recipe
    done = 0

    def set_rates(progress: float) -> None:
        for step, row in zip(steps, rows, strict=True):
            step.set_rate(rate_share(done, progress, row.recipe.optimizer))

    set_rates(0)
    if device.type == "cuda":
        together.capture()
        done += 1
    start = saved = logged = time.monotonic()
    while (progress := limits.progress(done, time.monotonic() - start)) < 1:
        set_rates(progress)
        together()
        done += 1
        if done % first.log_steps:
            continue
        losses = [step.read() for step in steps]  # waits for the device
        now = time.monotonic()
        rate, logged = first.log_steps / (now - logged), now
        for row, means in zip(rows, losses, strict=True):
            _log(out / row.name, {"step": done, "elapsed_s": round(now - start, 1), **means})
        totals = "  ".join(f"{row.name} {means['total']:.2f}" for row, means in zip(rows, losses, strict=True))
        report(f"step {done}  {100 * progress:.0f} %  {rate:.2f} steps/s  {totals}")
        if first.save_minutes is not None and now - saved > 60 * first.save_minutes:
            _save(rows, steps, out, done, now - start)
            saved = now
    _save(rows, steps, out, done, time.monotonic() - start)


class Together:
    """Steps of several trainings as one call.

    On a CPU each row has random numbers of its own, so that it trains as it would alone. Branches of a graph share a
    generator: there a row is as good as alone, but not the same.
    """

    def __init__(self, steps: Sequence[Step], seeds: Sequence[int]) -> None:
        """Take over the steps of the rows, and the seed of each."""
        self._steps = steps
        self._draws = []
        for seed in seeds:
            torch.manual_seed(seed)
            self._draws.append(torch.get_rng_state())
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Run one step of each."""
        if self._graph is None:
            for index, step in enumerate(self._steps):
                torch.set_rng_state(self._draws[index])
                step()
                self._draws[index] = torch.get_rng_state()
            return
        self._graph.replay()
        for step in self._steps:
            step.count()

    def capture(self) -> None:
        """Record one step of each, after an ordinary one of each, as branches of one graph.

        Raises:
            DeviceError: something in a step cannot be recorded.
        """
        streams = [torch.cuda.Stream() for _ in self._steps]  # type: ignore[no-untyped-call]  # torch's own lack
        torch.cuda.synchronize()
        for stream, step in zip(streams, self._steps, strict=True):
            with torch.cuda.stream(stream):
                step()
            torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                root = torch.cuda.current_stream()
                for stream, step in zip(streams, self._steps, strict=True):
                    stream.wait_stream(root)
                    with torch.cuda.stream(stream):
                        step.record()
                for stream in streams:
                    root.wait_stream(stream)
        except RuntimeError as error:
            raise DeviceError(f"the steps cannot be recorded ({' '.join(str(error).split())})") from error
        self._graph = graph


def _key(source: SourceConfig, power: float) -> str:
    return f"{power} {source.model_dump_json()}"


def _log(folder: Path, row: dict[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({name: round(value, 5) for name, value in row.items()}) + "\n")


def _save(rows: Sequence[Row], steps: Sequence[Step], out: Path, done: int, elapsed_s: float) -> None:
    for row, step in zip(rows, steps, strict=True):
        save_average(step.average, row.recipe, out / row.name, done, elapsed_s)
