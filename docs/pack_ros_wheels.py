"""Wheels of ROS 2 for a machine without a network: `python docs/pack_ros_wheels.py OUT`.

Downloads the wheels of the extra [ros] as constraints.txt pins them, for Python 3.12 on x86-64 Linux, and packs them
into OUT/1, OUT/2, ... of at most 44 MB each. There, all parcels side by side:
`python3 -m pip install --no-index --no-deps */*.whl`, without --target: the wheels find their libraries from the
site-packages of the Python that runs, so it must be the one that holds torch.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 44_000_000  # bytes of a parcel
BESIDES = ("lark-parser", "pyyaml", "psutil")  # that rclpy and the node import; empy is for generating messages


def pins(constraints: str) -> list[str]:
    """NAME==VERSION of every package of ROS and of what it needs at run time."""
    lines = (line.partition(";")[0].strip() for line in constraints.splitlines())
    return [line for line in lines if re.match(rf"(ros-|({'|'.join(BESIDES)})==)", line, re.IGNORECASE)]


def parcels(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """Names in parcels of at most `limit` bytes, the largest first, each into the first that has room."""
    packed: list[tuple[list[str], int]] = []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        place = next((index for index, (_, used) in enumerate(packed) if used + sizes[name] <= limit), None)
        if place is None:
            packed.append(([name], sizes[name]))
        else:
            packed[place] = ([*packed[place][0], name], packed[place][1] + sizes[name])
    return [names for names, _ in packed]


def main(out: Path) -> None:
    """Download and pack."""
    wheels = out / "wheels"
    target = ["--python-version", "3.12", "--implementation", "cp", "--only-binary", ":all:"]
    target += [part for tag in ("2_28", "2_17") for part in ("--platform", f"manylinux_{tag}_x86_64")]
    target += ["--platform", "manylinux2014_x86_64"]
    wanted = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *target, "-d", str(wheels), *wanted]
    subprocess.run(command, check=True)
    for number, names in enumerate(parcels({file.name: file.stat().st_size for file in wheels.iterdir()}, LIMIT), 1):
        folder = out / str(number)
        folder.mkdir(exist_ok=True)
        for name in names:
            (wheels / name).replace(folder / name)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{folder}: {len(names)} wheels, {size / 1e6:.1f} MB")
    wheels.rmdir()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
