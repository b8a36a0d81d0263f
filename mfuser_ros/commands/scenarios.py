"""What `mfuser evaluate --scenarios` does. Imports what takes time; the verb imports it when it is called."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from mfuser_ros.commands.bag_evaluation import Crew, edge, progress
from mfuser_ros.evaluation.bag.collect import scores_in
from mfuser_ros.evaluation.bag.fleet.task import Done, Task, bag_folder, expected_frames, pinned
from mfuser_ros.evaluation.bag.run import BagResult
from mfuser_ros.evaluation.bag.settings import BagSettings
from mfuser_ros.evaluation.limits import Limit, parse_limit, value_of
from mfuser_ros.evaluation.scenario import Case, Scenario, cases, junit, load_suite
from mfuser_ros.vocabulary import Vocabulary, load


class Seen(NamedTuple):
    """A bag under one weather; None: as it was recorded."""

    bag: Path
    weather: str | None


def run_suite(
    file: Path, settings: BagSettings, *, out: Path | None, report: Path | None, crew: Crew, quiet: bool
) -> int:
    """Judge the scenarios of a YAML on the bags in its folder; write JUnit XML to `report`, or `out`/junit.xml.

    Returns:
        Exit code: 0 if everything holds, 1 if a limit is broken, 2 if a bag cannot be judged.
    """
    suite = load_suite(file)
    judged = cases(suite, file.parent)
    settings = pinned(settings)
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mfuser_scenarios_")))
        wanted = list(dict.fromkeys(seen for case in judged for seen in _needed(case, file.parent)))
        results = _evaluate(wanted, settings, folder, crew, quiet=quiet)
        vocabulary = load(settings.vocabulary)
        for case in judged:
            _judge(case, results, folder, file.parent, vocabulary)
    target = report if report is not None else None if out is None else out / "junit.xml"
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(junit(suite.name, judged), encoding="utf-8")
    if not quiet:
        _print(suite.name, judged)
        if target is not None:
            print(target)
    return 2 if any(case.error for case in judged) else 1 if any(case.failures for case in judged) else 0


def _needed(case: Case, root: Path) -> list[Seen]:
    twins = [_seen_twin(case.bag, twin.bag, twin.degrade, root) for twin in case.scenario.twins]
    return [Seen(case.bag, None), *twins]


def _seen_twin(bag: Path, other: str | None, weather: str | None, root: Path) -> Seen:
    return Seen(bag, weather) if other is None else Seen(root / other, None)


def _evaluate(wanted: Sequence[Seen], settings: BagSettings, out: Path, crew: Crew, *, quiet: bool) -> dict[Seen, Done]:
    tasks = [Task(str(seen.bag), settings.model_copy(update={"degrade": seen.weather}), edge()) for seen in wanted]
    counts = [expected_frames(task.bag, task.settings) for task in tasks]
    total = sum(counts) if all(counts) else None
    done = progress(crew.run(tasks, out, settings), total=total, quiet=quiet)
    return dict(zip(wanted, done, strict=True))


def _judge(case: Case, results: Mapping[Seen, Done], out: Path, root: Path, vocabulary: Vocabulary) -> None:
    scenario = case.scenario
    own = _figures(case, Seen(case.bag, None), results, out, scenario, vocabulary)
    for limit in map(parse_limit, scenario.limits):
        _hold(case, limit, value_of(own, limit.metric), "")
    if own:
        case.seconds = own["frames"] * (own["latency_ms"]["p50"] or 0) / 1e3
    for twin in scenario.twins:
        other = _figures(case, _seen_twin(case.bag, twin.bag, twin.degrade, root), results, out, scenario, vocabulary)
        for limit in map(parse_limit, twin.change):
            before, after = value_of(own, limit.metric), value_of(other, limit.metric)
            change = None if before is None or after is None else after - before
            _hold(case, limit, change, f"change to {twin.bag or twin.degrade}: ")


def _figures(
    case: Case, seen: Seen, results: Mapping[Seen, Done], out: Path, scenario: Scenario, vocabulary: Vocabulary
) -> dict[str, Any]:  # JSON
    """Figures of a bag in the window of a scenario; a bag that cannot be trusted makes the case an error."""
    done = results[seen]
    result = BagResult.read(bag_folder(out, done.key)) if done.key else None
    if result is None:
        case.error = case.error or done.error
        return {"frames": 0, "latency_ms": {"p50": None}}
    if result.damage:
        case.error = case.error or f"{seen.bag.name} is damaged: {result.damage[0]}"
    figures = scores_in(bag_folder(out, done.key), vocabulary, topic=scenario.topic, window=scenario.window)
    if not figures["frames"]:
        case.error = case.error or f"{seen.bag.name}: no frame of {scenario.topic or 'any camera'} in the window"
    return figures


def _hold(case: Case, limit: Limit, value: float | None, what: str) -> None:
    found = "was not measured" if value is None else f"is {value:.6g}"
    line = f"{what}{limit}: {limit.metric} {found}"
    case.facts.append(line)
    if not limit.holds(value):
        case.failures.append(line)


def _print(name: str, judged: Sequence[Case]) -> None:
    table = Table(title=name)
    for column in ("scenario", "bag", "result", "figures"):
        table.add_column(column)
    for case in judged:
        verdict = "error" if case.error else "broken" if case.failures else "holds"
        table.add_row(case.scenario.name, case.bag.name, verdict, case.error or "\n".join(case.facts))
    Console().print(table)
