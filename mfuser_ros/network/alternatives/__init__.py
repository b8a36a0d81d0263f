"""What the paper compares MVFuser and MTEnhancer with, chosen by `fusion.kind` and `enhancer.kind`."""

from mfuser_ros.network.alternatives.mixers import build_mixer, build_mvfuser
from mfuser_ros.network.alternatives.tokens import ReinMaps

__all__ = ["ReinMaps", "build_mixer", "build_mvfuser"]
