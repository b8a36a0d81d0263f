"""What setup.cfg cannot say: every file of launch/, config/ and models/ goes to share/mfuser_ros, folders kept."""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
PACKAGE = "mfuser_ros"


def shared(folder: str) -> list[tuple[str, list[str]]]:
    """(destination, files) of `folder` and of each folder in it; a pattern that met a folder would fail the build."""
    found: dict[str, list[str]] = {}
    for file in sorted((HERE / folder).rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            path = file.relative_to(HERE)
            found.setdefault(f"share/{PACKAGE}/{path.parent.as_posix()}", []).append(path.as_posix())
    return list(found.items())


setup(
    python_requires=">=3.10",  # from setup.cfg it would be an object, which colcon cannot read back
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        # pip puts entry points into bin/ alone, where `ros2 run` and launch do not look; colcon writes its own over it
        (f"lib/{PACKAGE}", ["scripts/segment"]),
        *shared("launch"),
        *shared("config"),
        *shared("models"),
    ],
)
