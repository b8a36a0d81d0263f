"""From a picture to a mask: the Segmenter and what it returns."""

from mfuser_ros.inference.loading import load
from mfuser_ros.inference.segmentation import Segmentation, overlay
from mfuser_ros.inference.segmenter import Segmenter, Timing
from mfuser_ros.inference.steady import Steady

__all__ = ["Segmentation", "Segmenter", "Steady", "Timing", "load", "overlay"]
