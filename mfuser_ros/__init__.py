"""MFuser for ROS 2: semantic masks and a drivable area from vehicle cameras."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mfuser_ros.inference import Segmentation, Segmenter, load

__version__ = "0.1.0"

__all__ = ["Segmentation", "Segmenter", "__version__", "load"]


def __getattr__(name: str) -> Any:  # whatever the name stands for
    """Import the public names when they are first used: torch takes seconds, `import mfuser_ros` must not."""
    if name in {"Segmentation", "Segmenter", "load"}:
        from mfuser_ros import inference  # noqa: PLC0415  (see above)

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
