"""The filter for labels that flicker, as the node uses it: switched by a parameter, and what fails becomes a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfuser_ros.node.health import Fault, Level
from mfuser_ros.node.intake import Work
from mfuser_ros.node.lines import one_line
from mfuser_ros.node.stamps import SECOND_NS

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmentation, Segmenter  # torch is loaded when the node is configured


class Steadied:
    """Makes the answers of all cameras steady while `temporal.filter` says so; for the worker's thread alone.

    Args:
        segmenter: gives the answers.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        from mfuser_ros.inference.steady import Steady  # noqa: PLC0415  torch is loaded when the node is configured

        self._steady = Steady(segmenter)

    def __call__(self, work: Work, answer: Segmentation | Fault) -> Segmentation | Fault:
        """The answer as it is to be published; give those of a camera in the order of their stamps."""
        name = work.camera.settings.name
        if isinstance(answer, Fault) or not work.settings.temporal_filter or not work.stamp_ns:
            self._steady.reset(name)  # what was shown before this picture must not be held after it
            return answer
        try:
            return self._steady.update(answer, time_s=work.stamp_ns / SECOND_NS, camera=name)
        except Exception as error:  # the picture has failed as if the network had
            self._steady.reset(name)
            return Fault(Level.ERROR, "inference", f"temporal.filter: {one_line(error)}")
