"""The training loop: schedule by steps or time, log, validation, checkpoints, resume."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints.store import ModelCard, fill, read_tensors, save_model
from mfuser_ros.datasets.config import load_config
from mfuser_ros.errors import CheckpointError, ConfigurationError
from mfuser_ros.network.config import changed
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.text import StoredTextQueries
from mfuser_ros.network.towers import MobileNetV2Tower, load_mobilenet
from mfuser_ros.training.config import TowerFiles, TrainConfig
from mfuser_ros.training.sources import load_source
from mfuser_ros.training.step import Step, rate_share

STATE = "state.pt"
LOG = "log.jsonl"

Validate = Callable[[MFuser], Mapping[str, float]]
Report = Callable[[Mapping[str, Any]], None]  # a row of the log: numbers and text


@dataclass(frozen=True)
class Limits:
    """How long to train."""

    steps: int
    minutes: float | None = None  # of the whole schedule, over all sessions; the rate is 0 at its end
    session_minutes: float | None = None  # stop and save after so long, to be resumed

    def progress(self, step: int, elapsed_s: float) -> float:
        """0..1 of steps or of time, whichever is further."""
        of_time = elapsed_s / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(step / self.steps, of_time))


def initial_model(config: TrainConfig, towers: Path) -> MFuser:
    """The preset as the recipe changes it, with pretrained towers and text embeddings; all else is random.

    Raises:
        ConfigurationError: no such preset, changes that it does not allow, or one whose towers are not MobileNetV2.
        CheckpointError: a file is missing or does not fit.
    """
    architecture = changed(config.preset, config.changes)
    torch.manual_seed(config.seed)
    model = MFuser(architecture)
    load_pretrained(model, config.towers, towers)
    return model


def load_pretrained(model: MFuser, files: TowerFiles, folder: Path) -> None:
    """Fill towers and text embeddings from files in `folder`.

    Raises:
        ConfigurationError: the towers are not MobileNetV2.
        CheckpointError: a file is missing or does not fit.
    """
    for tower, part in zip(model.towers, model.architecture.tower_names, strict=True):
        name = getattr(files, part)
        if not isinstance(tower, MobileNetV2Tower):
            raise ConfigurationError(f"{name}: only MobileNetV2 towers are filled from files: choose the preset small")
        load_mobilenet(tower, {key: value.float() for key, value in read_tensors(folder / name).items()})
    if model.architecture.matched:  # it knows no text
        return
    text = read_tensors(folder / files.text).get("text")
    if not isinstance(model.text, StoredTextQueries):
        raise ConfigurationError(f"{files.text}: the preset has a text tower of its own: choose the preset small")
    embeddings = model.text.embeddings
    if text is None or text.shape != embeddings.shape:
        found = "nothing" if text is None else f"shape {tuple(text.shape)}"
        raise CheckpointError(f"{folder / files.text}: `text` is {found}, not of shape {tuple(embeddings.shape)}")
    with torch.no_grad():
        embeddings.copy_(text)


def train(
    config: TrainConfig,
    *,
    data: Path,
    towers: Path,
    out: Path,
    device: torch.device,
    limits: Limits,
    eager: bool = False,
    resume: Path | None = None,
    start: Path | None = None,
    validate: Validate | None = None,
    report: Report | None = None,
) -> MFuser:
    """Train and leave weights, state and log in `out`.

    Args:
        config: the recipe.
        data: folder of the data sets.
        towers: folder of the pretrained towers.
        out: receives the averaged weights as a model file PRESET.safetensors with PRESET.yaml, `state.pt` (to resume)
            and `log.jsonl`.
        device: a GPU, or the CPU (slow, for tests).
        limits: steps and minutes.
        eager: do not record a CUDA graph.
        resume: a `state.pt` to go on from, as if nothing had happened.
        start: weights (.safetensors of this preset) to begin a new schedule from.
        validate: called with the average every few minutes and at the end; its numbers go into the log.
        report: called with each row of the log.

    Returns:
        The model with averaged weights.

    Raises:
        DatasetError, CheckpointError, ConfigurationError, DeviceError: see the message.
    """
    out.mkdir(parents=True, exist_ok=True)
    model = initial_model(config, towers)
    if start is not None:
        fill(model, read_tensors(start), source=str(start))
    model = model.to(device)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own lack
    sources = [
        load_source(source, data, device, frequency_power=config.losses.frequency_power) for source in config.sources
    ]
    torch.manual_seed(config.seed)
    step = Step(model, sources, config, device)
    done, elapsed = _resume(step, resume, config) if resume else (0, 0.0)
    run = _Run(config, step, out, limits, validate, report, done, elapsed)
    return run(eager=eager or device.type != "cuda")


class _Run:
    """The state of one session."""

    def __init__(
        self, config: TrainConfig, step: Step, out: Path, limits: Limits,
        validate: Validate | None, report: Report | None, done: int, elapsed_s: float,
    ) -> None:  # fmt: skip
        self.config, self.step, self.out, self.limits = config, step, out, limits
        self.validate, self.report = validate, report
        self.done, self.before_s = done, elapsed_s
        self.start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return self.before_s + time.monotonic() - self.start

    def __call__(self, *, eager: bool) -> MFuser:
        optimizer = self.config.optimizer
        progress = self.limits.progress(self.done, self.elapsed_s)
        if not eager and progress < 1:
            warm_up = 4
            self.step.set_rate(rate_share(self.done, progress, optimizer.warm_up_steps, optimizer.power))
            self.step.capture(warm_up)
            self.done += warm_up
        self.start = time.monotonic()  # compilation and recording are not training
        logged = saved = checked = time.monotonic()
        logged_step = self.done
        while (progress := self.limits.progress(self.done, self.elapsed_s)) < 1 and not self._session_over():
            self.step.set_rate(rate_share(self.done, progress, optimizer.warm_up_steps, optimizer.power))
            self.step()
            self.done += 1
            if self.done % self.config.log_steps:
                continue
            row = self.step.read()  # waits for the device, so the clock below is honest
            now = time.monotonic()
            rate = (self.done - logged_step) / (now - logged)
            self._log(self._row(row, progress, rate))
            logged, logged_step = now, self.done
            if now - saved > 60 * self.config.save_minutes:
                self.save()
                saved = now
            if self.validate and now - checked > 60 * self.config.validation.minutes:
                self._check()
                checked = logged = time.monotonic()
        self.save()
        if self.validate:
            self._check()
        return self.step.average

    def _session_over(self) -> bool:
        minutes = self.limits.session_minutes
        return minutes is not None and time.monotonic() - self.start > 60 * minutes

    def _row(self, losses: Mapping[str, float], progress: float, rate: float) -> dict[str, Any]:
        left = (1 - progress) / max(progress, 1e-9) * self.elapsed_s
        numbers = {name: round(value, 5) for name, value in losses.items()}
        return {
            "step": self.done, "progress": round(progress, 4), "elapsed_s": round(self.elapsed_s, 1),
            "steps_per_s": round(rate, 3), "eta_s": round(left), **numbers,
        }  # fmt: skip

    def _log(self, row: Mapping[str, Any]) -> None:
        with (self.out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        if self.report:
            self.report(row)

    def _check(self) -> None:
        assert self.validate is not None
        self._log({"step": self.done, "elapsed_s": round(self.elapsed_s, 1), **self.validate(self.step.average)})

    def save(self) -> None:
        """Write weights and state; a reader never sees half a file."""
        save_average(self.step.average, self.config, self.out, self.done, self.elapsed_s)
        state = {
            "version": 1,
            "config": self.config.model_dump_json(),
            "step": self.done,
            "elapsed_s": self.elapsed_s,
            "model": self.step.model.state_dict(),
            "average": self.step.average.state_dict(),
            "optimizer": self.step.optimizer.state_dict(),
            "random": random_state(),
        }
        _replace(self.out / STATE, lambda path: torch.save(state, path))


def save_average(average: MFuser, config: TrainConfig, out: Path, steps: int, elapsed_s: float) -> None:
    """Write averaged weights as a model file PRESET.safetensors with its PRESET.yaml into `out`.

    Args:
        average: the network to write.
        config: its recipe.
        out: folder.
        steps: done so far.
        elapsed_s: seconds of training so far.
    """
    sets = {source.dataset: load_config(source.dataset) for source in config.sources}
    terms = "; ".join(f"{name}: {dataset.licence}" for name, dataset in sets.items())
    architecture = average.architecture
    towers = " and ".join(getattr(config.towers, tower) for tower in architecture.tower_names)
    names = " + ".join(f"{source.dataset}/{source.split}" for source in config.sources)
    card = ModelCard(
        name=config.preset,
        architecture=architecture,
        vocabulary=vocabulary.load().names,
        threshold=0,
        temperature=1,
        licence=f"weights for research and other non-commercial use, as the training data ask: {terms}",
        provenance=(
            f"`mfuser train` on {names}: {steps} steps of {config.batch} crops, "
            f"{elapsed_s / 60:.1f} minutes, seed {config.seed}; towers "
            f"{towers}, text {config.towers.text}"
        ),
    )
    save_model(average, card, out / f"{config.preset}.safetensors")


def random_state() -> list[Tensor]:
    """States of torch's generators: CPU, then the current GPU if there is one."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def _resume(step: Step, path: Path, config: TrainConfig) -> tuple[int, float]:
    """Load a state; steps done and seconds spent."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if TrainConfig.model_validate_json(state["config"]) != config:
            raise CheckpointError(f"{path}: belongs to another recipe: resume with the recipe that it was made with")
        step.model.load_state_dict(state["model"])
        step.average.load_state_dict(state["average"])
        step.optimizer.load_state_dict(state["optimizer"])
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: no state to resume from ({' '.join(str(error).split())[:200]})") from error
    step.relink()
    torch.set_rng_state(state["random"][0])
    if torch.cuda.is_available() and len(state["random"]) > 1:
        torch.cuda.set_rng_state(state["random"][1])
    return int(state["step"]), float(state["elapsed_s"])


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)
