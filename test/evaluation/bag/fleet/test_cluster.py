"""A Ray cluster of two actor processes on this machine: the same to the last digit, also when one is killed."""

import os
import signal
from pathlib import Path

import psutil
import pytest

ray = pytest.importorskip("ray", reason="ray is not installed: pip install mfuser_ros[ray]")

from mfuser_ros.errors import MFuserError, WorkerError  # noqa: E402
from mfuser_ros.evaluation.bag.fleet.cluster import run_cluster  # noqa: E402
from mfuser_ros.evaluation.bag.fleet.task import Task  # noqa: E402

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs, and no dashboard."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    ray.init(
        num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="error",
        object_store_memory=80 * 2**20, runtime_env={"env_vars": {"PYTHONPATH": path}},
    )  # fmt: skip
    yield
    ray.shutdown()


def actors():
    """Processes of this machine that are actors of ours."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if any(part.startswith("ray::BagWorker") for part in process.cmdline()[:1])
    ]


def test_two_actors_of_which_one_is_killed_give_what_one_process_gives(
    cluster, tasks, pinned_settings, alone, outcome, tmp_path, drain
):
    work = run_cluster(tasks, tmp_path, pinned_settings, address="auto")
    next(work)  # a bag is done, others are in work
    before = actors()
    assert before
    os.kill(before[0].pid, signal.SIGKILL)
    assert outcome(drain(work), tmp_path) == alone


def test_what_is_done_is_not_sent_again(cluster, tasks, pinned_settings, tmp_path, drain):
    first = drain(run_cluster(tasks[:1], tmp_path, pinned_settings, address="auto"))
    frames = tmp_path / "bags" / first[0].key[:16] / "frames.parquet"
    before = frames.stat().st_mtime_ns
    again = drain(run_cluster(tasks[:1], tmp_path, pinned_settings, address="auto"))
    assert again == first
    assert frames.stat().st_mtime_ns == before


def test_fault_of_the_settings_ends_the_run_with_its_line(cluster, tasks, pinned_settings, tmp_path, drain):
    wrong = pinned_settings.model_copy(update={"model": str(tmp_path / "gone.safetensors")})
    with pytest.raises(MFuserError, match="gone"):
        drain(run_cluster([Task(tasks[0].bag, wrong, tasks[0].edge)], tmp_path, wrong, address="auto"))


def test_cluster_that_does_not_answer_is_one_line(tasks, pinned_settings, tmp_path, drain, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", _refuse)  # ray itself waits for minutes
    with pytest.raises(WorkerError, match=r"--ray 10.0.0.1:1: no cluster answers \(nobody there\)") as raised:
        drain(run_cluster(tasks, tmp_path, pinned_settings, address="10.0.0.1:1"))
    assert "\n" not in str(raised.value)


def _refuse(**_):
    raise ConnectionError("nobody there")
