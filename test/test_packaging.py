"""What is installed, said in several files that must agree."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import mfuser_ros

ROOT = Path(__file__).resolve().parents[1]
SHARED = ("config", "launch", "models")
INSIDE_ROS = {
    "ament_index_python",
    "autoware_internal_debug_msgs",
    "cv_bridge",
    "launch",
    "launch_ros",
    "rclpy",
    "tf2_msgs",
    "tf2_ros",
    "vision_msgs",
}
DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python-headless", "open_clip": "open-clip-torch", "yaml": "pyyaml"}
TRANSITIVE = {"torchvision": "timm"}  # imported to be mended, because timm imports it

pytestmark = pytest.mark.skipif(not (ROOT / "setup.cfg").exists(), reason="needs the source checkout")


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def names(requirements: str) -> list[str]:
    """Normalised names (PEP 503) of requirement lines; a requirement on our own extra is left out."""
    found = [re.match(r"[A-Za-z0-9._-]+", line) for line in requirements.split("\n") if line.strip()]
    normal = [re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match]
    return [name for name in normal if name != "mfuser-ros"]


def pins() -> dict[str, list[str]]:
    """Lines of constraints.txt by normalised name."""
    lines: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            lines.setdefault(names(line)[0], []).append(line)
    return lines


def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def test_manifest_is_format_3_of_an_ament_python_package():
    root = manifest()

    assert root.attrib["format"] == "3"
    assert root.findtext("name") == "mfuser_ros"
    assert root.findtext("export/build_type") == "ament_python"
    assert root.findtext("license") == "Apache-2.0"


def test_version_is_the_same_everywhere():
    assert manifest().findtext("version") == mfuser_ros.__version__
    assert f"\nversion: {mfuser_ros.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_manifest_names_every_message_package_that_the_code_imports():
    wanted = {entry.text for entry in manifest().iter("exec_depend")}
    messages = {name for name in imported() if name.endswith(("_msgs", "_interfaces"))}

    assert messages - wanted <= {"autoware_internal_debug_msgs", "tf2_msgs"}  # optional, not in every distribution
    assert "rclpy" in wanted


def test_every_shared_file_is_installed():
    code = "import setuptools; setuptools.setup = lambda **given: print(given['data_files']); import setup"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    data_files: list[tuple[str, list[str]]] = ast.literal_eval(printed)

    installed = {source: f"{folder}/{Path(source).name}" for folder, sources in data_files for source in sources}
    tracked = [
        file.relative_to(ROOT).as_posix()
        for folder in SHARED
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    ]
    assert tracked
    for source in tracked:
        assert installed[source] == f"share/mfuser_ros/{source}"
    assert installed["package.xml"] == "share/mfuser_ros/package.xml"
    assert installed["resource/mfuser_ros"] == "share/ament_index/resource_index/packages/mfuser_ros"


def test_node_is_where_ros2_run_looks_after_pip_too():
    script = ROOT / "scripts" / "segment"

    assert os.access(script, os.X_OK)
    assert "scripts/segment" in (ROOT / "setup.py").read_text(encoding="utf-8")


def test_every_file_beside_the_code_is_installed():
    patterns = settings()["options.package_data"]["mfuser_ros"].split()
    package = ROOT / "mfuser_ros"
    covered = {file for pattern in patterns for file in package.glob(pattern)}

    others = {file for file in package.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert others == covered


def test_every_package_has_an_init():
    folders = {file.parent for file in (ROOT / "mfuser_ros").rglob("*.py")}

    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_requirement_is_pinned_and_nothing_twice_for_one_python():
    parser = settings()
    wanted = names(parser["options"]["install_requires"])
    for extra in parser["options.extras_require"].values():
        wanted += names(extra)

    assert sorted(set(wanted) - set(pins())) == []
    for lines in pins().values():
        assert all(re.fullmatch(r"[^=;]+==[^;+]+(; python_version .+)?", line) for line in lines)
        assert len({line.partition(";")[2] for line in lines}) == len(lines)


def test_torch_is_pinned_with_its_torchvision_for_every_build():
    assert pins()["torch"] == ["torch==2.13.0"]
    assert pins()["torchvision"] == ["torchvision==0.28.0"]


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("mfuser_ros", ("ros", "cuda", "siglip", "plot", "ray", "export", "openvino")),
        ("test", ("ros", "cuda", "train", "test", "export")),
    ],
)
def test_every_import_is_a_requirement(folder, extras):
    parser = settings()
    required = set(names(parser["options"]["install_requires"]))
    for extra in extras:
        required |= set(names(parser["options.extras_require"][extra]))

    missing = set()
    for name in imported(folder) - INSIDE_ROS - set(TRANSITIVE):
        distribution = DISTRIBUTIONS.get(name, name.replace("_", "-"))
        if not {distribution, f"ros-{distribution}"} & required:
            missing.add(name)
    assert sorted(missing) == []


def imported(folder: str = "mfuser_ros") -> set[str]:
    """Top-level names of other packages that the Python files of a folder import anywhere."""
    files = list((ROOT / folder).rglob("*.py"))
    own = {"mfuser_ros", "conftest"} | {file.stem for file in files if folder == "test"}
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - own


def test_no_two_test_files_have_one_name():
    names_of_files = [file.name for file in (ROOT / "test").rglob("test_*.py")]

    # the folders are no packages, so pytest would take the second file for the first
    assert sorted({name for name in names_of_files if names_of_files.count(name) > 1}) == []
