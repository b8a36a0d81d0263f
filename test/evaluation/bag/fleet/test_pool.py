"""Worker processes: the same to the last digit, also when one is killed."""

import os
import signal

import pytest

from mfuser_ros.errors import MFuserError
from mfuser_ros.evaluation.bag.fleet.pool import run_here, run_pool
from mfuser_ros.evaluation.bag.fleet.task import Task, expected_frames, finished, local, perform
from mfuser_ros.evaluation.bag.run import load_segmenter


def test_two_workers_of_which_one_is_killed_give_what_one_process_gives(
    tasks, pinned_settings, alone, outcome, tmp_path, drain
):
    pids = []
    work = run_pool(tasks, tmp_path, pinned_settings, workers=2, started=pids.append)
    next(work)  # a frame is done, so a bag is in work
    os.kill(pids[0], signal.SIGKILL)
    done = drain(work)
    assert len(pids) == 3  # another took its place
    assert outcome(done, tmp_path) == alone


def test_what_is_done_is_not_done_again(tasks, pinned_settings, tmp_path, drain):
    drain(run_here(tasks[:1], tmp_path, pinned_settings))
    assert len(list(run_here(tasks[:2], tmp_path, pinned_settings))) == 4  # the frames of the second bag


def test_unreadable_bag_does_not_keep_the_others_from_their_turn(tasks, pinned_settings, tmp_path, drain):
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"nothing")
    done = drain(run_here([Task(str(broken), *tasks[0][1:]), tasks[0]], tmp_path / "out", pinned_settings))
    assert "broken.mcap: damaged or no bag" in done[0].error
    assert done[1].key


def test_fault_of_the_settings_ends_the_pool_with_its_line(tasks, pinned_settings, tmp_path, drain):
    wrong = pinned_settings.model_copy(update={"model": str(tmp_path / "gone.safetensors")})
    with pytest.raises(MFuserError, match="gone"):
        drain(run_pool(tasks[:1], tmp_path, wrong, workers=2))


def test_bag_is_fetched_from_a_store_by_its_url(bags, tasks, pinned_settings, tmp_path):
    import fsspec

    store = fsspec.filesystem("memory")
    store.put(str(bags[0]), "/archive/day_0", recursive=True)
    with local("memory://archive/day_0") as path:
        assert sorted(file.name for file in path.iterdir()) == sorted(file.name for file in bags[0].iterdir())
    task = Task("memory://archive/day_0", *tasks[0][1:])
    segmenter = load_segmenter(pinned_settings)
    assert len(list(perform(task, tmp_path, segmenter))) == 3
    assert len(list(perform(tasks[0], tmp_path, segmenter))) == 0  # the same content
    missing = finished(perform(Task("memory://gone", *tasks[0][1:]), tmp_path, segmenter))
    assert "memory://gone: cannot be fetched" in missing.error


def test_number_of_frames_is_told_as_the_bag_states_it(bags, pinned_settings):
    assert [expected_frames(str(bag), pinned_settings) for bag in bags] == [3, 4, 5]
    assert expected_frames("s3://somewhere/bag", pinned_settings) == 0
