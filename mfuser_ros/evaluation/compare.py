"""Two runs on the same frames: how far every figure differs, and whether that is more than chance.

Neighbouring frames show nearly the same, so they are no independent witnesses. The bootstrap therefore draws whole
blocks of neighbours, and the same ones for both runs.

Sources: Künsch, The Jackknife and the Bootstrap for General Stationary Observations, Annals of Statistics 1989;
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 15 (percentile interval, significance);
Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 1979.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from mfuser_ros.errors import InputError
from mfuser_ros.evaluation.metrics import BINS
from mfuser_ros.evaluation.record import number

BLOCK_S = 2.0
"""Length of a block of a recording, seconds."""

BLOCK_PICTURES = 10
"""Length of a block of a set whose pictures have no times."""

LEAST_BLOCKS = 8
"""With fewer blocks nothing is said about chance."""

DRAWS = 2000
MEANS = ("confidence", "unknown_share", "latency_ms", "drivable_m", "free_m2", "flips_per_s")
MOST_DIFFERENT = 8
_ROWS = 256


class FrameKey(NamedTuple):
    """Where a frame is found again in another run."""

    recording: str  # name of the bag; empty in a set
    topic: str  # or the stem of a picture
    number: int  # index on its topic; 0 for a picture


@dataclass(frozen=True, eq=False)
class Run:
    """A folder that `mfuser evaluate --out` has written.

    Attributes:
        folder: of the run.
        summary: what summary.json holds.
    """

    folder: Path
    summary: Mapping[str, Any]  # JSON

    @property
    def classes(self) -> list[str]:
        """Names of the labels that were scored; empty without labels."""
        return [entry["name"] for entry in self.summary["classes"]] if self.summary["confusion"] is not None else []

    @property
    def road(self) -> int | None:
        """Place of the road among the classes: the one with the road's scores."""
        road = self.summary["road"]
        places = enumerate(self.summary["classes"])
        return next((place for place, entry in places if road and all(entry[key] == road[key] for key in road)), None)

    def rows(self) -> Iterator[tuple[FrameKey, dict[str, Any]]]:
        """The frames in recorded order."""
        with pq.ParquetFile(self.folder / "frames.parquet") as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    yield _key(row), row


def open_run(folder: Path) -> Run:
    """A run by its folder.

    Raises:
        InputError: it holds no finished evaluation.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if not (folder / "frames.parquet").is_file() or "classes" not in summary:
            raise ValueError("frames.parquet or classes are missing")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{folder}: no finished evaluation ({reason}): give a folder of mfuser evaluate --out"
        ) from error
    return Run(folder, summary)


class Figures(NamedTuple):
    """Figures of R sums of blocks; NaN where there is nothing."""

    metrics: dict[str, np.ndarray]  # name -> (R,)
    iou: np.ndarray  # (R, G) of the classes

    def of(self, which: str | int) -> np.ndarray:
        """(R,) of a metric by its name, or of a class by its place."""
        return self.metrics[which] if isinstance(which, str) else self.iou[:, which]


@dataclass(eq=False)
class Blocks:
    """Counts of one run by block.

    Attributes:
        confusion: (blocks, G, G + 1).
        boundary: (blocks, 2, G).
        calibration: (blocks, 3, bins).
        sums: (blocks, len(MEANS)).
        counts: (blocks, len(MEANS)) frames in each sum.
    """

    confusion: np.ndarray
    boundary: np.ndarray
    calibration: np.ndarray
    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls, blocks: int, classes: int) -> Blocks:
        """Nothing counted yet."""
        shapes = ((classes, classes + 1), (2, classes), (3, BINS), (len(MEANS),), (len(MEANS),))
        return cls(*(np.zeros((blocks, *shape)) for shape in shapes))

    def add(self, block: int, row: Mapping[str, Any]) -> None:
        """Count a frame."""
        if row["confusion"] is not None and self.confusion.shape[1]:
            self.confusion[block] += np.reshape(row["confusion"], self.confusion.shape[1:])
            self.boundary[block] += np.reshape(row["boundary"], self.boundary.shape[1:])
            self.calibration[block] += np.reshape(row["calibration"], self.calibration.shape[1:])
        for place, name in enumerate(MEANS):
            value = row.get(name)
            if value is not None:
                self.sums[block, place] += value
                self.counts[block, place] += 1

    def figures(self, weights: np.ndarray, road: int | None) -> Figures:
        """Figures of weighted sums of the blocks.

        Args:
            weights: (R, blocks), how often each block counts.
            road: class of the road.
        """
        draws = len(weights)
        confusion = np.tensordot(weights, self.confusion, 1)  # (R, G, G + 1)
        hits = np.einsum("rgg->rg", confusion[..., :-1])
        labelled, predicted = confusion.sum(2), confusion[..., :-1].sum(1)
        iou = _ratio(hits, labelled + predicted - hits)
        boundary = np.tensordot(weights, self.boundary, 1)
        calibration = np.tensordot(weights, self.calibration, 1)
        gaps = np.abs(calibration[:, 1] - calibration[:, 2]).sum(1)
        found = {
            "miou": _mean(iou),
            "pixel_accuracy": _ratio(hits.sum(1), labelled.sum(1)),
            "boundary_iou": _mean(_ratio(boundary[:, 0], boundary[:, 1])),
            "ece": _ratio(gaps, calibration[:, 0].sum(1)),
        }
        if road is not None:
            found["road_precision"] = _ratio(hits[:, road], predicted[:, road])
            found["road_recall"] = _ratio(hits[:, road], labelled[:, road])
            found["road_iou"] = iou[:, road]
        means = _ratio(weights @ self.sums, weights @ self.counts)
        found |= {name: means[:, place] for place, name in enumerate(MEANS)}
        return Figures({name: np.broadcast_to(values, (draws,)) for name, values in found.items()}, iou)


def compare(a: Run, b: Run, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:  # JSON
    """Compare two runs on the frames that both have; differences are B minus A.

    Args:
        a: the one run.
        b: the other.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: they share no frame, or were scored by different labels.
    """
    if a.classes and b.classes and a.classes != b.classes:
        raise InputError(f"{a.folder} and {b.folder}: were scored by different labels: evaluate both by one scheme")
    classes = a.classes if b.classes else []
    times = _times(a, b)
    if not times:
        raise InputError(f"{a.folder} and {b.folder}: share no frame: compare runs on the same bags or sets")
    block_of = assign_blocks(times)
    blocks = max(block_of.values()) + 1
    counted, scores = zip(*(_count(run, block_of, blocks, len(classes)) for run in (a, b)), strict=True)
    road = a.road if classes else None
    test = Bootstrap.draw(counted, road, blocks, draws=draws, seed=seed)
    by_class = [test.entry(name, classes.index(name)) for name in classes]
    _mark_significant(by_class)
    metrics = [test.entry(name, name) for name in test.plain[0].metrics]
    return {
        "version": 1,
        "a": _about(a),
        "b": _about(b),
        "frames": len(block_of),
        "frames_only_a": _size(a) - len(block_of),
        "frames_only_b": _size(b) - len(block_of),
        "blocks": blocks,
        "draws": draws,
        "metrics": [entry for entry in metrics if entry["a"] is not None or entry["b"] is not None],
        "classes": by_class,
        "most_different": _most_different(scores[0], scores[1], times),
    }


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Figures of both runs: as they are, and of blocks drawn at random, the same for both."""

    plain: Sequence[Figures]
    drawn: Sequence[Figures] | None  # None: too few blocks

    @classmethod
    def draw(cls, counted: Sequence[Blocks], road: int | None, blocks: int, *, draws: int, seed: int) -> Bootstrap:
        """Draw blocks with replacement."""
        plain = [each.figures(np.ones((1, blocks)), road) for each in counted]
        if blocks < LEAST_BLOCKS:
            return cls(plain, None)
        weights = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), draws).astype(float)
        return cls(plain, [each.figures(weights, road) for each in counted])

    def entry(self, name: str, which: str | int) -> dict[str, Any]:
        """One line of the comparison: both values, their difference, its 95 % interval and how likely chance is.

        Args:
            name: of the line.
            which: a metric by its name, or a class by its place.
        """
        a, b = (number(float(found.of(which)[0])) for found in self.plain)
        difference = None if a is None or b is None else b - a
        low = high = p = None
        if difference is not None and self.drawn is not None:
            differences = self.drawn[1].of(which) - self.drawn[0].of(which)
            differences = differences[np.isfinite(differences)]
            if len(differences):
                low, high = (float(value) for value in np.percentile(differences, (2.5, 97.5)))
                tail = min((differences <= 0).sum(), (differences >= 0).sum())
                p = float(min(1.0, 2 * (tail + 1) / (len(differences) + 1)))
        return {"name": name, "a": a, "b": b, "difference": difference, "low": low, "high": high, "p": p}


def assign_blocks(times: Mapping[FrameKey, float | None]) -> dict[FrameKey, int]:
    """Blocks of neighbours: `BLOCK_S` of one camera of a recording, or `BLOCK_PICTURES` of a set.

    Args:
        times: of the frames in recorded order, seconds; None where a set has none.
    """
    found: dict[FrameKey, int] = {}
    numbers: dict[tuple[str, str, int], int] = {}
    for place, (key, time_s) in enumerate(times.items()):
        if time_s is None:
            group = ("", "", place // BLOCK_PICTURES)
        else:
            group = (key.recording, key.topic, int(time_s // BLOCK_S))
        found[key] = numbers.setdefault(group, len(numbers))
    return found


def _times(a: Run, b: Run) -> dict[FrameKey, float | None]:
    """Times of the frames that both runs have, in the order of the first."""
    others = {key for key, _ in b.rows()}
    return {key: row.get("time_s") for key, row in a.rows() if key in others}


def _count(
    run: Run, block_of: Mapping[FrameKey, int], blocks: int, classes: int
) -> tuple[Blocks, dict[FrameKey, tuple[float, dict[str, Any]]]]:
    counted = Blocks.empty(blocks, classes)
    scores = {}
    for key, row in run.rows():
        if key in block_of:
            counted.add(block_of[key], row)
            score = row["miou"] if classes else row["confidence"]
            if score is not None:
                scores[key] = (float(score), {"bag": row.get("bag", "")})
    return counted, scores


def _most_different(
    a: Mapping[FrameKey, tuple[float, dict[str, Any]]],
    b: Mapping[FrameKey, tuple[float, dict[str, Any]]],
    times: Mapping[FrameKey, float | None],
) -> list[dict[str, Any]]:
    both = [key for key in a if key in b]
    ranked = sorted(both, key=lambda key: (-abs(b[key][0] - a[key][0]), key))[:MOST_DIFFERENT]
    return [
        {
            "bag": a[key][1]["bag"], "topic": key.topic, "index": key.number, "time_s": times[key],
            "a": a[key][0], "b": b[key][0], "difference": b[key][0] - a[key][0],
        }
        for key in ranked
    ]  # fmt: skip


def _mark_significant(entries: list[dict[str, Any]], level: float = 0.05) -> None:
    """Holm's step-down procedure over the classes, so that many classes do not make chance findings."""
    tested = sorted((entry for entry in entries if entry["p"] is not None), key=lambda entry: entry["p"])
    holds = True
    for rank, entry in enumerate(tested):
        holds = holds and entry["p"] <= level / (len(tested) - rank)
        entry["significant"] = holds
    for entry in entries:
        entry.setdefault("significant", False)


def _about(run: Run) -> dict[str, Any]:
    return {"folder": str(run.folder), "input": run.summary["input"], "model": run.summary["model"]}


def _size(run: Run) -> int:
    return int(pq.read_metadata(run.folder / "frames.parquet").num_rows)


def _key(row: Mapping[str, Any]) -> FrameKey:
    if "stem" in row:
        return FrameKey("", row["stem"], 0)
    return FrameKey(Path(row["bag"]).name, row["topic"], row["index"])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0))


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is no NaN; NaN where there is nothing."""
    seen = np.isfinite(values)
    return _ratio(np.where(seen, values, 0).sum(-1), seen.sum(-1))
