"""The log of a training: log.jsonl and run.json, and TensorBoard's files where that is installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mfuser_ros.training.saving import replaced

LOG = "log.jsonl"
SESSIONS = "run.json"
BOARD = "tensorboard"

Row = Mapping[str, Any]  # of the log: numbers and text
Report = Callable[[Row], None]


class Journal:
    """Writes each row to the files and passes it on."""

    def __init__(self, out: Path, *, step: int, report: Report | None) -> None:
        """Open the files of a training that has done `step` steps; what they say of later ones is taken back.

        A training that was killed had gone on after its last checkpoint: it will say those rows again.
        """
        self._log = out / LOG
        self._report = report
        if step == 0:
            (out / SESSIONS).unlink(missing_ok=True)  # of another training
        if self._log.is_file():
            kept = [line for line in self._log.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
            replaced(self._log, lambda path: path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8"))
        self._board = _board(out / BOARD, step)

    def begin(self, facts: Row) -> None:
        """Add a session to run.json: what ran, on what, from which step on."""
        path = self._log.with_name(SESSIONS)
        sessions = [*_read_sessions(path), dict(facts)]
        replaced(path, lambda part: part.write_text(json.dumps(sessions, indent=1) + "\n", encoding="utf-8"))

    def __call__(self, row: Row) -> None:
        """Write one row."""
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        if self._board is not None:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, row["step"])
        if self._report:
            self._report(row)

    def close(self) -> None:
        """Write what TensorBoard still holds back."""
        if self._board is not None:
            self._board.close()


def _read_sessions(path: Path) -> list[Any]:  # JSON
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []


def _board(folder: Path, step: int) -> Any:  # TensorBoard's writer, which is untyped
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # optional, and takes its time to import
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # cut off when the training was killed
