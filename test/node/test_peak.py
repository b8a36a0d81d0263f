"""The search of the highest rate on simulated nodes: what is lost follows from a capacity that is known."""

import pytest

from mfuser_ros.node.live_figures import Played, figures
from mfuser_ros.node.peak import DROP_SHARE, FIXED_HZ, keeps_up, search_peak

PICTURES = 200


class Simulated:
    """A node that needs `1 / capacity_hz` for a picture and takes the newest one, with a player of limited speed."""

    def __init__(self, capacity_hz, *, player_hz=1e9):
        self.capacity_hz, self.player_hz = capacity_hz, player_hz
        self.rates = []

    def __call__(self, rate_hz):
        self.rates.append(rate_hz)
        played_hz = min(rate_hz, self.player_hz)
        free_s, waiting, masks = 0.0, None, {}
        for index in range(PICTURES):
            now_s = index / played_hz
            if waiting is not None and free_s <= now_s:  # became free before this picture: took the waiting one
                masks[waiting] = free_s = free_s + 1 / self.capacity_hz
                waiting = None
            if free_s <= now_s:
                masks[index] = free_s = now_s + 1 / self.capacity_hz
            else:
                waiting = index
        if waiting is not None:
            masks[waiting] = free_s + 1 / self.capacity_hz
        run = [Played(index / rate_hz, index / played_hz, masks.get(index)) for index in range(PICTURES)]
        return figures({"front": run})


@pytest.mark.parametrize("capacity_hz", [1.3, 3.4, 9.9, 26.0, 80.0])
def test_peak_is_the_rate_that_the_node_can_do(capacity_hz):
    node = Simulated(capacity_hz)
    peak = search_peak(node)
    # 5 % of the pictures may be lost, and the scan goes in steps of 5 %
    assert capacity_hz * 0.94 <= peak.rate_hz <= capacity_hz * 1.06
    assert peak.limited_by == "node"
    assert peak.figures["drop_share"] < DROP_SHARE
    assert node.rates[-1] == peak.rate_hz  # measured a second time, at the end
    assert len(node.rates) <= 15


def test_node_that_is_slower_than_the_lowest_rate_has_no_peak():
    node = Simulated(0.5)
    peak = search_peak(node)
    assert (peak.rate_hz, peak.figures, peak.limited_by) == (None, None, "node")
    assert node.rates[-1] == 1.0  # the lowest rate was not refused unseen


def test_node_that_keeps_up_with_all_is_limited_by_the_search():
    peak = search_peak(Simulated(1000.0))
    assert peak.limited_by == "search"
    assert 95.0 <= peak.rate_hz <= 100.0


def test_player_that_is_too_slow_is_not_blamed_on_the_node():
    node = Simulated(1000.0, player_hz=20.0)
    peak = search_peak(node)
    assert peak.limited_by == "player"
    assert 19.0 <= peak.rate_hz <= 21.1
    assert not keeps_up(node(FIXED_HZ[2]))


def test_lucky_rate_that_does_not_hold_again_is_given_up():
    measured = []

    def moody(rate_hz):
        measured.append(rate_hz)
        lucky = 4.0 < rate_hz < 7.0 and len(measured) < 8
        return Simulated(8.0 if lucky else 4.0)(rate_hz)

    peak = search_peak(moody)
    assert max(rate for rate, run in peak.probes if keeps_up(run)) > 4.3
    assert 3.4 <= peak.rate_hz <= 4.25


def test_one_camera_that_is_starved_counts():
    def measure(rate_hz):
        good, starved = Simulated(1000.0)(rate_hz), Simulated(2.0)(rate_hz)
        cameras = [good["cameras"][0]] * 30 + starved["cameras"]
        return good | {"cameras": cameras}

    assert search_peak(measure).rate_hz < 2.2
