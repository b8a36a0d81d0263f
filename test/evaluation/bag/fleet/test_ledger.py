import pytest

from mfuser_ros.errors import WorkerError
from mfuser_ros.evaluation.bag.fleet.ledger import TRIES, Ledger
from mfuser_ros.evaluation.bag.fleet.task import Done


def test_every_bag_is_handed_out_once_and_results_keep_the_order():
    ledger = Ledger(3)
    assert [ledger.next() for _ in range(4)] == [0, 1, 2, None]
    for place in (2, 0, 1):
        assert not ledger.is_over
        ledger.finish(place, Done(str(place), ""))
    assert ledger.is_over
    assert [done.key for done in ledger.results()] == ["0", "1", "2"]


def test_lost_bag_comes_again_after_the_others():
    ledger = Ledger(2)
    assert ledger.next() == 0
    ledger.lost(0, "a")
    assert [ledger.next(), ledger.next(), ledger.next()] == [1, 0, None]


def test_second_result_of_a_bag_changes_nothing():
    ledger = Ledger(1)
    ledger.next()
    ledger.finish(0, Done("first", ""))
    ledger.finish(0, Done("second", ""))
    assert [done.key for done in ledger.results()] == ["first"]


def test_bag_that_kills_its_workers_ends_the_run():
    ledger = Ledger(1)
    for _ in range(TRIES - 1):
        ledger.next()
        ledger.lost(0, "bad.mcap")
    ledger.next()
    with pytest.raises(WorkerError, match=rf"bad.mcap: {TRIES} workers died over it"):
        ledger.lost(0, "bad.mcap")
