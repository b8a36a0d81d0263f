"""The rows of a bag on disk while they grow: numbered Parquet files, each written whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mfuser_ros.evaluation.bag.frames import Row

ROWS = 256
"""Rows of a part: what is in memory, and at most what an interruption loses."""

FLUSH_S = 30.0
_PART = "part-{:06d}.parquet"
_STATE = b"state"


class RowStore:
    """Appends rows; picks up what an earlier run has left in the folder.

    Attributes:
        done: index of the last stored frame by topic.
        state: what the snapshot gave when the last part was stored; None before the first.
    """

    def __init__(self, folder: Path, schema: pa.Schema, snapshot: Callable[[], Any] = dict) -> None:  # Any: JSON
        """Open the folder, which is made if need be.

        Args:
            folder: for the parts.
            schema: of the rows.
            snapshot: gives JSON that is stored with the rows it belongs to.
        """
        self.folder = folder
        self._schema = schema
        self._rows: list[Row] = []
        self._snapshot = snapshot
        self._last_s = time.monotonic()
        self.done: dict[str, int] = {}
        self.state: Any | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.parts = 0
        while (folder / _PART.format(self.parts)).exists():
            self._take_over(folder / _PART.format(self.parts))
            self.parts += 1

    def __enter__(self) -> RowStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.flush()  # after an interruption too: what was measured is kept

    def append(self, row: Row) -> None:
        """Add the row of one frame."""
        self._rows.append(row)
        if len(self._rows) >= ROWS or time.monotonic() - self._last_s >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what has been added."""
        self._last_s = time.monotonic()
        if not self._rows:
            return
        schema = self._schema.with_metadata({_STATE: json.dumps(self._snapshot()).encode()})
        table = pa.Table.from_pylist(self._rows, schema=schema)
        path = self.folder / _PART.format(self.parts)
        unfinished = path.with_suffix(".unfinished")
        pq.write_table(table, unfinished, compression="zstd")
        unfinished.replace(path)
        self.parts += 1
        self._rows = []

    def finish(self, path: Path) -> None:
        """Put the parts together as one Parquet file and remove them."""
        self.flush()
        unfinished = path.with_suffix(".unfinished")
        with pq.ParquetWriter(unfinished, self._schema, compression="zstd") as writer:
            for part in self._paths():
                writer.write_table(pq.read_table(part).replace_schema_metadata(None))
        unfinished.replace(path)
        for part in self._paths():
            part.unlink()

    def _take_over(self, part: Path) -> None:
        table = pq.read_table(part, columns=["topic", "index"])
        for topic, index in zip(table["topic"].to_pylist(), table["index"].to_pylist(), strict=True):
            self.done[topic] = index
        self.state = json.loads((table.schema.metadata or {}).get(_STATE, b"{}"))

    def _paths(self) -> list[Path]:
        return [self.folder / _PART.format(number) for number in range(self.parts)]


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Row batches of a Parquet file, few at a time in memory."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=ROWS)
