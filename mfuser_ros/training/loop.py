"""The training loop: schedule by steps or time, log, validation, checkpoints, resume."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mfuser_ros import __version__, vocabulary
from mfuser_ros.checkpoints.store import ModelCard, TokenIds, fill, read_tensors, save_model, sha256
from mfuser_ros.datasets.config import load_config
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.text import SiglipTextEncoder
from mfuser_ros.training import processes
from mfuser_ros.training.config import TrainConfig
from mfuser_ros.training.journal import Journal, Report
from mfuser_ros.training.optimizer import rate_share
from mfuser_ros.training.saving import STATE, Progress, Score, load_state, save_state
from mfuser_ros.training.sources import open_source
from mfuser_ros.training.start import initial_model
from mfuser_ros.training.step import Step

WARM_UP = 4  # ordinary steps before a CUDA graph is recorded

Validate = Callable[[MFuser], Mapping[str, float]]
"""A network in eval mode -> numbers for the log; the first one is the score, and more of it is better."""


@dataclass(frozen=True)
class Limits:
    """How long to train."""

    steps: int
    minutes: float | None = None  # of the whole schedule, over all sessions; the rate is at its end then
    session_minutes: float | None = None  # stop and save after so long, to be resumed

    def progress(self, step: int, elapsed_s: float) -> float:
        """0..1 of steps or of time, whichever is further."""
        of_time = elapsed_s / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(step / self.steps, of_time))


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

    With several processes (`processes.joined`) each takes its share of every batch, and the first one alone writes,
    reports and validates.

    Args:
        config: the recipe.
        data: folder of the data sets.
        towers: folder of the pretrained towers.
        out: receives the weights that ship as model files, the last as PRESET.safetensors and those with the best
            score as PRESET_best.safetensors, each with its .yaml; `state.pt` and `state_best.pt` to resume from;
            `log.jsonl`, `run.json` and `tensorboard/`.
        device: a GPU, or the CPU (slow, for tests).
        limits: steps and minutes.
        eager: do not record a CUDA graph.
        resume: a state to go on from, as if nothing had happened.
        start: weights (.safetensors of this preset) to begin a new schedule from.
        validate: called with the weights that ship as often as the recipe says, and at the end.
        report: called with each row of the log.

    Returns:
        The model with the weights that ship.

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
        open_source(source, config, data, device, number=number, cache=out)
        for number, source in enumerate(config.sources)
    ]
    torch.manual_seed(config.seed)
    step = Step(model, sources, config, device)
    progress = load_state(resume, step, config) if resume else Progress()
    first = processes.rank() == 0
    journal = Journal(out, step=step.done, report=report) if first else None
    if journal:
        journal.begin(_facts(config, step, limits, towers, start))
    run = _Run(config, step, out, limits, validate if first else None, journal, progress)
    # no graph with several processes: what they say to each other was not tested in one
    return run(eager=eager or device.type != "cuda" or processes.count() > 1)


class _Run:
    """The state of one session."""

    def __init__(
        self, config: TrainConfig, step: Step, out: Path, limits: Limits,
        validate: Validate | None, journal: Journal | None, progress: Progress,
    ) -> None:  # fmt: skip
        self.config, self.step, self.out, self.limits = config, step, out, limits
        self.validate, self.journal = validate, journal
        self.best, self.last = progress.best, progress.last
        self.before_s = progress.elapsed_s
        self.start = self.logged = self.saved = self.checked = time.monotonic()
        self.logged_step = step.done

    @property
    def elapsed_s(self) -> float:
        return self.before_s + time.monotonic() - self.start

    def __call__(self, *, eager: bool) -> MFuser:
        progress = self._progress()
        if not eager and progress < 1:
            self.step.set_rate(rate_share(self.step.done, progress, self.config.optimizer))
            self.step.capture(WARM_UP)
        # compilation and recording are not training
        self.start = self.logged = self.saved = self.checked = time.monotonic()
        self.logged_step = self.step.done
        while (progress := self._progress()) < 1 and not self._session_over():
            self.step.set_rate(rate_share(self.step.done, progress, self.config.optimizer))
            self.step()
            self._look_up(progress)
        if self.validate and (self.last is None or self.last.step != self.step.done):
            self._check()
        self.save()
        if self.journal:
            self.journal.close()
        return self.step.average

    def _progress(self) -> float:
        progress = self.limits.progress(self.step.done, self.elapsed_s)
        return self._agreed(progress) if self.limits.minutes else progress

    def _session_over(self) -> bool:
        minutes = self.limits.session_minutes
        return minutes is not None and self._agreed(time.monotonic() - self.start) > 60 * minutes

    def _agreed(self, clock: float) -> float:
        return processes.of_first(clock, self.step.device)

    def _look_up(self, progress: float) -> None:
        """Log, validate and save where the time has come."""
        done, config = self.step.done, self.config
        logs = done % config.log_steps == 0
        if logs:
            losses = self.step.read()  # waits for the device, so the clock below is honest
            now = time.monotonic()
            self._log(self._row(losses, progress, (done - self.logged_step) / (now - self.logged)))
            self.logged, self.logged_step = now, done
        chosen = config.validation
        if self.validate and self._due(chosen.steps, chosen.minutes, self.checked, logs):
            self._check()
            self.checked = self.logged = time.monotonic()
        if self.journal and self._due(config.save_steps, config.save_minutes, self.saved, logs):
            self.save()
            self.saved = time.monotonic()

    def _due(self, steps: int | None, minutes: float | None, since: float, looks_at_clock: bool) -> bool:
        if steps is not None and self.step.done % steps == 0:
            return True
        return looks_at_clock and minutes is not None and time.monotonic() - since > 60 * minutes

    def _row(self, losses: Mapping[str, float], progress: float, rate: float) -> dict[str, Any]:
        left = (1 - progress) / max(progress, 1e-9) * self.elapsed_s
        numbers = {name: round(value, 5) for name, value in losses.items()}
        return {
            "step": self.step.done, "progress": round(progress, 4), "elapsed_s": round(self.elapsed_s, 1),
            "steps_per_s": round(rate, 3), "eta_s": round(left), **numbers,
        }  # fmt: skip

    def _log(self, row: Mapping[str, Any]) -> None:
        if self.journal:
            self.journal(row)

    def _check(self) -> None:
        assert self.validate is not None
        with self.step.evaluating() as model:
            numbers = self.validate(model)
        self._log({"step": self.step.done, "elapsed_s": round(self.elapsed_s, 1), **numbers})
        name, value = next(iter(numbers.items()))
        self.last = Score(name, value, self.step.done)
        if self.best is None or value > self.best.value:
            self.best = self.last
            self._save_as("_best", f"the best of its validations: {self.best}")

    def save(self) -> None:
        """Write weights and state; a reader never sees half a file."""
        said = "the last checkpoint" if self.last is None else f"the last checkpoint, validated: {self.last}"
        self._save_as("", said)

    def _save_as(self, suffix: str, said: str) -> None:
        if self.journal is None:
            return
        step, out = self.step, self.out
        save_average(step.average, self.config, out, step.done, self.elapsed_s, suffix=suffix, said=said)
        state = out / STATE
        progress = Progress(self.elapsed_s, self.best, self.last)
        save_state(state.with_stem(state.stem + suffix), step, self.config, progress)


def save_average(
    average: MFuser, config: TrainConfig, out: Path, steps: int, elapsed_s: float, *, suffix: str = "",
    said: str = "the last checkpoint",
) -> None:  # fmt: skip
    """Write the weights that ship as a model file PRESET.safetensors with its PRESET.yaml into `out`.

    Args:
        average: the network to write.
        config: its recipe.
        out: folder.
        steps: done so far.
        elapsed_s: seconds of training so far.
        suffix: of the files' stem.
        said: what the description says of this checkpoint.
    """
    sets = {source.dataset: load_config(source.dataset) for source in config.sources}
    terms = "; ".join(f"{name}: {dataset.licence}" for name, dataset in sets.items())
    architecture = average.architecture
    towers = " and ".join(getattr(config.towers, tower) for tower in architecture.tower_names)
    names = " + ".join(f"{source.dataset}/{source.split}" for source in config.sources)
    text = config.towers.text or config.towers.tokens
    card = ModelCard(
        name=config.preset,
        architecture=architecture,
        vocabulary=vocabulary.load().names,
        token_ids=_token_ids(average),
        threshold=0,
        temperature=1,
        licence=f"weights for research and other non-commercial use, as the training data ask: {terms}",
        provenance=(
            f"`mfuser train` on {names}: {steps} steps of {config.batch} crops, "
            f"{elapsed_s / 60:.1f} minutes, seed {config.seed}; towers "
            f"{towers}{f', text {text}' if text else ''}; {said}"
        ),
    )
    save_model(average, card, out / f"{config.preset}{suffix}.safetensors")


def _facts(config: TrainConfig, step: Step, limits: Limits, towers: Path, start: Path | None) -> dict[str, Any]:
    """What a reader of the log needs to repeat it."""
    named = {name for name in config.towers.model_dump().values() if name is not None}
    names = [name for name in sorted(named) if (towers / name).is_file()]  # one tower alone needs but its own
    gpu = step.device.type == "cuda"
    return {
        "from_step": step.done,
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "limits": dataclasses.asdict(limits),
        "processes": processes.count(),
        "device": torch.cuda.get_device_name(step.device) if gpu else platform.machine(),
        "versions": {"mfuser_ros": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "sha256": {name: sha256(towers / name) for name in names},
        "start": None if start is None else {"name": start.name, "sha256": sha256(start)},
        "recipe": config.model_dump(mode="json"),
    }


def _token_ids(network: MFuser) -> TokenIds | None:
    """Of the class names, for a text tower whose tokenizer does not ship with us."""
    if not isinstance(network.text, SiglipTextEncoder) or network.text.ids is None:
        return None
    return tuple(tuple(row) for row in network.text.ids.tolist())
