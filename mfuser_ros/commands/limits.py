"""Say which limits an evaluation breaks."""

from __future__ import annotations

import sys
from typing import Any


def tell_limits(summary: dict[str, Any]) -> bool:  # JSON
    """Name the broken limits on stderr; whether all hold."""
    broken = [entry for entry in summary["limits"] if not entry["holds"]]
    for entry in broken:
        found = "was not measured" if entry["value"] is None else f"is {entry['value']:.6g}"
        print(f"mfuser: limit {entry['limit']} is broken: {entry['metric']} {found}", file=sys.stderr)
    return not broken
