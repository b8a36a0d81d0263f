"""The part of tf2_ros that the node uses, in Python: no wheel of tf2_ros exists.

Transforms are put in by `Buffer.set_transform` and `set_transform_static`, as the real listener does from /tf and
/tf_static. As in tf2, a chain of static transforms is stamped 0, a time between two transforms is interpolated, a time
outside raises, and `clear` keeps static ones. Chains have one link here, and rotations are not interpolated.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any, ClassVar


class TransformException(Exception):  # noqa: N818  tf2's own name
    """What tf2's exceptions derive from."""


class LookupException(TransformException):
    """A frame that was never heard of."""


class ExtrapolationException(TransformException):
    """A time that no transform covers."""


class Buffer:
    """`made` holds all buffers, so that a test reaches that of a node."""

    made: ClassVar[list[Buffer]] = []

    def __init__(self) -> None:
        self._static: dict[tuple[str, str], Any] = {}
        self._moving: dict[tuple[str, str], list[Any]] = {}
        self._lock = threading.Lock()
        self.lookups = 0
        Buffer.made.append(self)

    def set_transform_static(self, transform: Any, authority: str = "") -> None:
        with self._lock:
            self._static[transform.header.frame_id, transform.child_frame_id] = transform

    def set_transform(self, transform: Any, authority: str = "") -> None:
        with self._lock:
            self._moving.setdefault((transform.header.frame_id, transform.child_frame_id), []).append(transform)

    def clear(self) -> None:
        with self._lock:
            self._moving = {}

    def can_transform(self, target: str, source: str, time: Any) -> bool:
        try:
            self.lookup_transform(target, source, time)
        except TransformException:
            return False
        return True

    def lookup_transform(self, target: str, source: str, time: Any) -> Any:
        from geometry_msgs.msg import TransformStamped

        with self._lock:
            self.lookups += 1
            for frame in (target, source):
                if frame.startswith("/"):
                    raise LookupException(f'Invalid argument "{frame}" passed to lookupTransform: cannot start with /')
            if (target, source) in self._static:
                found = TransformStamped(child_frame_id=source, transform=self._static[target, source].transform)
                found.header.frame_id = target
                return found
            moving = self._moving.get((target, source))
            if not moving:
                raise LookupException(f'"{source}" passed to lookupTransform argument source_frame does not exist.')
            if time.nanoseconds == 0:
                return moving[-1]
            for one, other in itertools.pairwise(moving):
                begin, end = (t.header.stamp.sec * 10**9 + t.header.stamp.nanosec for t in (one, other))
                if begin <= time.nanoseconds <= end:
                    share = (time.nanoseconds - begin) / (end - begin)
                    found = TransformStamped(child_frame_id=source)
                    found.header.frame_id = target
                    found.header.stamp.sec, found.header.stamp.nanosec = divmod(time.nanoseconds, 10**9)
                    for axis in "xyz":
                        first, last = (getattr(t.transform.translation, axis) for t in (one, other))
                        setattr(found.transform.translation, axis, first + share * (last - first))
                    found.transform.rotation = one.transform.rotation
                    return found
            raise ExtrapolationException("Lookup would require extrapolation into the future.")


class TransformListener:
    """Feeds nothing: there is no tf2_msgs either."""

    def __init__(self, buffer: Buffer, node: Any, *, spin_thread: bool = False) -> None:
        assert not spin_thread, "the node's own executor feeds the buffer"
        self.buffer = buffer

    def unregister(self) -> None:
        self.buffer = None
