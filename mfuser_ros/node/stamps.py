"""Which pictures are worth the network's time: decided by stamps, without ROS."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

SECOND_NS = 1_000_000_000
MAX_AHEAD_NS = SECOND_NS
SAME_EPOCH_NS = 3600 * SECOND_NS
"""Clock and stamps that differ by more count time from different beginnings, as with a bag without use_sim_time."""


class Verdict(NamedTuple):
    """What to do with a picture, and what to say about it."""

    action: Literal["process", "drop", "skip"]  # a skipped picture is one too many for max_rate, not a fault
    warning: str = ""  # kind of fault, for diagnostics
    text: str = ""


def stamp_ns(stamp: Any) -> int | None:  # Any: rclpy's and rosbags' Time
    """Nanoseconds of a builtin_interfaces/Time; None if it is no time."""
    if stamp.sec < 0 or not 0 <= stamp.nanosec < SECOND_NS:
        return None
    return int(stamp.sec) * SECOND_NS + int(stamp.nanosec)


def age_ns(stamp: int | None, now_ns: int) -> int | None:
    """Age of a stamp; None where clock and stamp cannot be compared: no stamp, no clock yet, or another epoch."""
    if not stamp or not now_ns or abs(now_ns - stamp) > SAME_EPOCH_NS:
        return None
    return now_ns - stamp


class StampGate:
    """Judges the pictures of one camera in the order in which they come."""

    def __init__(self) -> None:
        self._published: int | None = None
        self._published_ahead = False
        self._due_ns = 0
        self.generation = 0

    def reset(self) -> None:
        """Forget what was published: time has jumped backwards."""
        self.generation += 1
        self._published = None
        self._due_ns = 0

    def judge(self, stamp: int | None, now_ns: int, arrival_ns: int, *, max_age: float, max_rate: float) -> Verdict:
        """Decide on one picture.

        Args:
            stamp: of the picture, nanoseconds; 0 for none, None for no time.
            now_ns: the node's clock, nanoseconds; 0 while it does not run.
            arrival_ns: a steady clock when the picture arrived, nanoseconds.
            max_age: seconds; 0 for no limit.
            max_rate: pictures a second; 0 for no limit.
        """
        if self._is_too_soon(arrival_ns, max_rate):
            return Verdict("skip")
        if not stamp:
            return Verdict("process", "stamp", "stamp is 0 or no time: the driver should stamp its pictures")
        age = age_ns(stamp, now_ns)
        ahead_ns = 0 if age is None or age >= -MAX_AHEAD_NS else -age
        # a picture from the future must not make all that follow look old
        if self._published is not None and self._published_ahead == bool(ahead_ns) and stamp < self._published:
            behind = (self._published - stamp) / SECOND_NS
            return Verdict("drop", "late", f"picture is {behind:.3f} s older than the last: the source is out of order")
        if ahead_ns:
            text = f"stamp is {ahead_ns / SECOND_NS:.3f} s in the future: synchronise the clocks"
            return Verdict("process", "stamp", text)
        if age is not None and 0 < max_age * SECOND_NS < age:
            text = f"picture is {age / SECOND_NS:.3f} s old, max_age is {max_age:g} s: find the delay upstream"
            return Verdict("drop", "late", text)
        return Verdict("process")

    def published(self, stamp: int | None, now_ns: int, generation: int) -> None:
        """Note that a mask with this stamp went out; `generation` is that of the gate when the picture was judged."""
        if stamp and generation == self.generation:
            age = age_ns(stamp, now_ns)
            self._published = stamp
            self._published_ahead = age is not None and age < -MAX_AHEAD_NS

    def _is_too_soon(self, arrival_ns: int, max_rate: float) -> bool:
        if max_rate <= 0:
            return False
        period = int(SECOND_NS / max_rate)
        if arrival_ns < self._due_ns:
            return True
        # counting on from the due time keeps the rate when pictures come a little early and late
        on_time = arrival_ns - self._due_ns < period
        self._due_ns = (self._due_ns if on_time else arrival_ns) + period
        return False
