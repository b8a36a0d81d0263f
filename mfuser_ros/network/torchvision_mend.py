"""Makes `import torchvision` work beside a CPU build of torch, and on boards whose torch comes from NVIDIA.

timm and open_clip import torchvision. Its wheel on the index is built against a CUDA torch; beside another torch
its operator library does not load, and the import ends with ``operator torchvision::nms does not exist``, because the
Python side attaches a shape rule to operators that nobody has declared. Nothing in this package calls these operators,
so declaring them is enough.
"""

from __future__ import annotations

import importlib
import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a Library takes its declarations back when it is collected


def mend() -> bool:
    """Import torchvision; when, and only when, its operators are missing, declare them and import it again.

    Call it before the first import of timm or open_clip. A second call does nothing.

    Returns:
        True if the operators had to be declared in this process.

    Raises:
        ImportError: torchvision is not installed, or is broken in another way.
    """
    if _declared:
        return True
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise ImportError(
                f"torchvision does not import ({error}): install the release that belongs to torch"
            ) from error
    else:
        return False
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
    # the failed import leaves half-initialised submodules behind, which the next import would take as they are
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    importlib.import_module("torchvision")
    return True
