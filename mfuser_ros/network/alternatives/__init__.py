"""What the paper compares MVFuser and MTEnhancer with, chosen by `fusion.kind` and `enhancer.kind`."""

from mfuser_ros.network.alternatives.linked import LinkedQueries
from mfuser_ros.network.alternatives.mixers import build_mixer, build_mvfuser
from mfuser_ros.network.alternatives.tokens import RankedTokens, ReinMaps

__all__ = ["LinkedQueries", "RankedTokens", "ReinMaps", "build_mixer", "build_mvfuser"]
