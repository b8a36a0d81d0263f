"""A bag through the real node at its own rate, node and player as two processes over DDS: what a vehicle would see."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfuser_ros.bags.recording import Damage
from mfuser_ros.evaluation.bag.settings import BagSettings
from mfuser_ros.node.live_figures import Played, figures
from mfuser_ros.node.live_player import WARM_UP_MASKS, LivePlayer
from mfuser_ros.node.peak import DROP_SHARE, FIXED_HZ, Peak, search_peak
from mfuser_ros.node.process import NodeProcess, isolation
from mfuser_ros.node.tape import Cue, Tape
from mfuser_ros.node.usage import UsageMeter

START_DEADLINE_S = 120.0
WARM_UP_DEADLINE_S = 60.0

PROBE_S = 5.0
"""How long a fixed rate is played, as in ros2_benchmark."""

LEAST_PICTURES = 25
"""Of a camera at a fixed rate: of fewer than 21, one lost picture would be 5 %."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the steps done and the steps in all (0: not known)."""


@dataclass(frozen=True, eq=False)
class Live:
    """What was measured.

    Attributes:
        played: every picture at the bag's own rate, by camera.
        figures: the section `live` of summary.json.
        model: name and sha256.
        device: that the node ran on.
        damage: of the bag.
    """

    played: Mapping[str, Sequence[Played]]
    figures: dict[str, Any]  # JSON
    model: dict[str, str]
    device: str
    damage: Damage


def measure_live(
    bag: Path, settings: BagSettings, *, logs: Path, domain_id: int, peak: bool, progress: Progress
) -> Live:
    """Start the node, play a bag to it, and count.

    Args:
        bag: to play.
        settings: model, device, topics, poses and time window.
        logs: folder for the log and the parameters of the node.
        domain_id: ROS domain of the two processes.
        peak: also search the highest rate and measure at `peak.FIXED_HZ`.
        progress: told of each step.

    Raises:
        InputError: the bag cannot be read, or has no pictures in the window.
        NodeError: the node does not start, dies, falls silent, or gives no mask at all.
    """
    tape = Tape(bag, settings)
    firsts = tape.firsts()
    environment = isolation(domain_id, logs)
    os.environ.update(environment)  # the middleware reads it when the player joins the graph
    with ExitStack() as stack:
        process = stack.enter_context(NodeProcess(_parameters(tape, settings), folder=logs, environment=environment))
        player = stack.enter_context(LivePlayer(tape.cameras, domain_id=domain_id, still_alive=process.check))
        progress("node", 0, 1)
        player.wait_for_node(deadline_s=START_DEADLINE_S)
        begun_s = time.monotonic()
        pictures = player.warm_up(firsts, deadline_s=WARM_UP_DEADLINE_S)
        warm_up = {"pictures": pictures, "masks": WARM_UP_MASKS * len(firsts), "seconds": _since(begun_s)}
        progress("node", 1, 1)
        meter = UsageMeter(process.pid)
        cues = _metered(tape.cues(), meter)
        played = player.play(cues, on_sent=lambda sent: progress("pictures", sent, tape.pictures))
        progress("pictures", sum(map(len, played.values())), sum(map(len, played.values())))
        found = figures(played) | meter.figures() | {"warm_up": warm_up, "peak": None, "fixed": []}
        if peak:
            bench = _Bench(tape, player, meter, progress)
            found["peak"] = _peak_section(search_peak(bench))
            found["fixed"] = [{"name": f"{rate:g}hz", **bench(rate)} for rate in FIXED_HZ]
        values = player.complaints.values
        model = {"name": values.get("model", settings.model), "sha256": values.get("model_sha256", "")}
        return Live(played, found, model, values.get("device", settings.device), tape.damage)


class _Bench:
    """Plays the beginning of the bag again and again at a fixed rate."""

    def __init__(self, tape: Tape, player: LivePlayer, meter: UsageMeter, progress: Progress) -> None:
        self._tape, self._player, self._meter, self._progress = tape, player, meter, progress
        self._runs = 0

    def __call__(self, rate_hz: float) -> dict[str, Any]:
        pictures = max(math.ceil(PROBE_S * rate_hz), LEAST_PICTURES)
        total = pictures * len(self._tape.cameras)
        self._runs += 1
        stage = f"{self._runs}: {rate_hz:g} Hz"
        cues = _metered(self._tape.loop(rate_hz, pictures), self._meter)
        played = self._player.play(cues, on_sent=lambda sent: self._progress(stage, sent, total))
        return figures(played) | self._meter.figures()


def _metered(cues: Iterable[Cue], meter: UsageMeter) -> Iterator[Cue]:
    """Measure the node from the first cue until the last one has been played: waiting for late masks is no load."""
    with meter.running():
        yield from cues


def _peak_section(peak: Peak) -> dict[str, Any]:
    return {
        "rate_hz": peak.rate_hz,
        "limited_by": peak.limited_by,
        "drop_share_below": DROP_SHARE,
        **{key: value for key, value in (peak.figures or {}).items() if key != "rate_hz"},
        "mask_rate_hz": None if peak.figures is None else peak.figures["rate_hz"],
        "probes": [
            {"wanted_hz": rate, **{key: entry[key] for key in ("played_hz", "rate_hz", "pictures", "drop_share")}}
            for rate, entry in peak.probes
        ],
    }


def _parameters(tape: Tape, settings: BagSettings) -> dict[str, Any]:  # Any: what ROS parameters hold
    parameters: dict[str, Any] = {
        "cameras": [camera.name for camera in tape.cameras],
        "model": settings.model,
        "device": settings.device,
        "grid.enabled": any(camera.pose is not None for camera in tape.cameras),
    }
    for camera in tape.cameras:
        parameters[f"{camera.name}.image_topic"] = camera.image_topic
        parameters[f"{camera.name}.transport"] = "compressed" if camera.compressed else "raw"
        if camera.pose is not None:
            parameters[f"{camera.name}.pose"] = [float(value) for value in camera.pose]
    if settings.vocabulary is not None:
        parameters["vocabulary"] = settings.vocabulary
    if settings.threshold is not None:
        parameters["threshold"] = float(settings.threshold)
    if settings.size is not None:
        parameters["input_size"] = list(settings.size)
    return parameters


def _since(begun_s: float) -> float:
    return round(time.monotonic() - begun_s, 3)
