"""From a picture to a mask: the Segmenter and what it returns."""

from mfuser_ros.inference.loading import load
from mfuser_ros.inference.segmentation import Segmentation, overlay
from mfuser_ros.inference.segmenter import Segmenter, Timing

__all__ = ["Segmentation", "Segmenter", "Timing", "load", "overlay"]
