"""Where the Triton kernels run in tests: on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def kernel_device() -> torch.device:
    """The device of the kernels' arguments; skips where triton is missing or its interpreter does not work."""
    if torch.cuda.is_available():
        pytest.importorskip("triton", reason="needs triton: pip install mfuser_ros[cuda]")
        return torch.device("cuda")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs a GPU that torch can use, or TRITON_INTERPRET=1")
    interpreter = pytest.importorskip(
        "triton.runtime.interpreter", reason="needs a GPU, or triton for its interpreter: pip install triton"
    )
    _mend_interpreter(interpreter)
    scan = importlib.import_module("mfuser_ros.network.scan.kernel")
    try:
        scan.scan(*(torch.ones(shape) for shape in ((1, 3, 2), (1, 3, 2), (2, 2), (1, 3, 2), (1, 3, 2), (2,))))
    except Exception as error:
        pytest.skip(f"triton's interpreter does not work here: {error}")
    return torch.device("cpu")


def _mend_interpreter(interpreter: Any) -> None:
    """Loop bounds are arrays of one element in triton's interpreter, which numpy 2.4 takes for no index any more."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        set_attribute = scope[0].set_attr if scope else setattr
        set_attribute(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patched
