"""Bags, and what one process makes of them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mfuser_ros.commands.bag_evaluation import edge
from mfuser_ros.evaluation.bag.collect import collect
from mfuser_ros.evaluation.bag.fleet.pool import run_here
from mfuser_ros.evaluation.bag.fleet.task import Done, Task, bag_folder
from mfuser_ros.evaluation.bag.frames import TIMES
from mfuser_ros.evaluation.bag.run import load_segmenter
from mfuser_ros.evaluation.bag.settings import BagSettings


@pytest.fixture(scope="session")
def pinned_settings(model) -> BagSettings:
    return BagSettings(model=str(model), device="cpu", threads=1, stills=2)


@pytest.fixture(scope="session")
def bags(tmp_path_factory, drive) -> list[Path]:
    """Three bags that differ in length."""
    folder = tmp_path_factory.mktemp("archive")
    return [drive(folder / f"day_{number}", frames=3 + number) for number in range(3)]


@pytest.fixture(scope="session")
def tasks(bags, pinned_settings) -> list[Task]:
    return [Task(str(bag), pinned_settings, edge()) for bag in bags]


@pytest.fixture(scope="session")
def outcome(pinned_settings):
    """Summary and rows of finished bags, without what differs from run to run."""

    def read(done: list[Done], out: Path) -> tuple[dict[str, object], list[dict[str, object]]]:
        assert not any(result.error for result in done)
        folders = [bag_folder(out, result.key) for result in done]
        summary = collect(
            folders, out, source="x", settings=pinned_settings, segmenter=load_segmenter(pinned_settings)
        ).summary
        rows = pq.read_table(out / "frames.parquet").drop_columns([*TIMES]).to_pylist()
        return {key: value for key, value in summary.items() if key != "latency_ms"}, rows

    return read


@pytest.fixture(scope="session")
def alone(tasks, pinned_settings, outcome, tmp_path_factory):
    """What one process makes of the bags."""
    out = tmp_path_factory.mktemp("alone")
    return outcome(drain(run_here(tasks, out, pinned_settings)), out)


def drain(work):
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="session", name="drain")
def _drain():
    return drain
