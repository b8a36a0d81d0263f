"""timm imports beside any build of torch; a torchvision that works, or fails otherwise, is left alone."""

import os
import subprocess
import sys
from pathlib import Path

MEND = """
import torch
{before}
from mfuser_ros.network.torchvision_mend import mend
mended = mend(), mend()
{after}
print(*mended)
"""

LIBRARY_OF_ANOTHER_BUILD = """
def no_library(path): raise OSError(path + ": built for another torch")
torch.ops.load_library = no_library
"""

TIMM_WORKS = """
import timm
assert timm.create_model("test_vit").num_classes == 1000
"""


def run(before: str = "", after: str = "", first_on_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    search = [str(first_on_path)] if first_on_path else []
    search += [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", MEND.format(before=before, after=after)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_timm_builds_a_network_beside_a_torch_without_the_operators():
    finished = run(LIBRARY_OF_ANOTHER_BUILD, TIMM_WORKS)

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["True", "True"]


def test_torchvision_that_imports_is_left_alone(tmp_path):
    (tmp_path / "torchvision.py").write_text("works = True\n", encoding="utf-8")

    finished = run(after="assert not hasattr(torch.ops.torchvision, 'nms')", first_on_path=tmp_path)

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["False", "False"]


def test_other_fault_of_torchvision_is_named(tmp_path):
    (tmp_path / "torchvision.py").write_text('raise RuntimeError("no space left")\n', encoding="utf-8")

    finished = run(first_on_path=tmp_path)

    assert finished.returncode == 1
    assert "ImportError: torchvision does not import (no space left)" in finished.stderr
