"""Where the shipped files (config/, models/, launch/) lie, however the package was installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mfuser_ros.errors import ConfigurationError

PACKAGE = "mfuser_ros"


def find(relative: str) -> Path:
    """Path of a shipped file or folder, such as ``config/vocabulary.yaml`` or ``models``.

    Looks in the ament prefixes (a colcon workspace), in ``<prefix>/share`` (pip install), and in the
    source checkout (pip install -e, which leaves data files where they are). The checkout wins over an installed
    copy when the running module comes from it, so that an edit is never shadowed.

    Raises:
        ConfigurationError: the file lies in none of the three places.
    """
    checkout = Path(__file__).resolve().parents[1]
    candidates = [checkout] if (checkout / "package.xml").exists() else []
    prefixes = filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))
    candidates.extend(Path(prefix) / "share" / PACKAGE for prefix in prefixes)
    candidates.append(Path(sys.prefix) / "share" / PACKAGE)
    for root in candidates:
        path = root / relative
        if path.exists():
            return path
    raise ConfigurationError(f"{relative}: not found in {', '.join(map(str, candidates))}: install mfuser_ros again")
