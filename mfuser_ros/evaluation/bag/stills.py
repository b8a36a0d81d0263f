"""Pictures of a bag that the report can show: some at even distances, and those at both ends of the scale.

Few are kept however long the bag is: when there are too many, every second one goes. The files lie beside the rows;
what names them is stored with the rows, so that an interrupted run goes on with them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from mfuser_ros.evaluation.bag.frames import Row
from mfuser_ros.evaluation.bag.meter import Measured
from mfuser_ros.evaluation.drive.birdseye import BirdsEye
from mfuser_ros.evaluation.report.triptych import triptych

Kind = Literal["film", "worst", "best"]

FOLDER = "stills"
WORST, BEST = 4, 2
PANEL_WIDTH = 380  # pixels
_QUALITY = 82


@dataclass(frozen=True)
class Kept:
    """One kept picture.

    Attributes:
        topic: of the frame.
        index: of the frame on its topic.
        time_s: after the first frame.
        score: mean IoU, or mean confidence where there is no label.
        file: in the folder of stills.
    """

    topic: str
    index: int
    time_s: float
    score: float | None
    file: str


class StillKeeper:
    """Chooses pictures while the frames go by."""

    def __init__(
        self, folder: Path, palette: np.ndarray, birds_eye: BirdsEye, *, limit: int, state: dict[str, Any] | None = None
    ) -> None:  # state: JSON
        """Prepare.

        Args:
            folder: of the bag's results; pictures go to `stills` in it.
            palette: (256, 3) uint8 RGB.
            birds_eye: draws the drivable area.
            limit: most pictures of one topic at even distances.
            state: what `state` gave in the run that is gone on with.
        """
        self._folder = folder / FOLDER
        self._palette, self._birds_eye, self._limit = palette, birds_eye, limit
        self._seen: dict[str, int] = {}
        self._stride: dict[str, int] = {}
        self._kept: dict[Kind, list[Kept]] = {"film": [], "worst": [], "best": []}
        if state is not None:
            self._seen, self._stride = dict(state["seen"]), dict(state["stride"])
            self._kept = {kind: [Kept(**entry) for entry in state["kept"][kind]] for kind in self._kept}

    def state(self) -> dict[str, Any]:  # JSON
        """What a later run needs to go on."""
        kept = {kind: [asdict(entry) for entry in entries] for kind, entries in self._kept.items()}
        return {"seen": self._seen, "stride": self._stride, "kept": kept}

    def add(self, measured: Measured) -> None:
        """Look at a frame, and keep its picture if it is one to show."""
        if not self._limit:
            return
        row = measured.row
        score = row["miou"] if row["labelled"] else row["confidence"]
        stem = f"{row['topic'].strip('/').replace('/', '-')}-{row['index']:08d}.jpg"
        entry = Kept(row["topic"], row["index"], row["time_s"], score, stem)
        topic = row["topic"]
        ordinal = self._seen.get(topic, 0)
        self._seen[topic] = ordinal + 1
        wanted = [kind for kind in ("worst", "best") if self._ranks(kind, entry)]
        if ordinal % self._stride.setdefault(topic, 1) == 0:
            self._kept["film"].append(entry)
            wanted.append("film")
            self._thin(topic)
        if wanted:
            self._write(measured, stem)

    def sweep(self) -> None:
        """Remove the files that nothing names any more; call it once the state has been stored."""
        if self._folder.is_dir():
            named = {entry.file for entries in self._kept.values() for entry in entries}
            for file in self._folder.iterdir():
                if file.name not in named:
                    file.unlink()

    def _ranks(self, kind: Kind, entry: Kept) -> bool:
        """Put the entry among the worst or best, if it belongs there."""
        if entry.score is None:
            return False
        kept = sorted([*self._kept[kind], entry], key=lambda one: (one.score, one.topic, one.index))
        kept = kept[:WORST] if kind == "worst" else kept[-BEST:]
        self._kept[kind] = kept
        return entry in kept

    def _thin(self, topic: str) -> None:
        """Leave every second picture of a topic where there are too many."""
        mine = [entry for entry in self._kept["film"] if entry.topic == topic]
        if len(mine) <= self._limit:
            return
        gone = set(mine[1::2])
        self._stride[topic] *= 2
        self._kept["film"] = [entry for entry in self._kept["film"] if entry not in gone]

    def _write(self, measured: Measured, name: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        sheet = triptych(measured.picture, measured.label, measured.prediction, self._palette, width=PANEL_WIDTH)
        if measured.occupancy is not None:
            above = self._birds_eye.draw(measured.occupancy, measured.contacts)
            width = round(above.shape[1] * sheet.shape[0] / above.shape[0])
            above = cv2.resize(above, (width, sheet.shape[0]), interpolation=cv2.INTER_AREA)
            gap = np.full((sheet.shape[0], 6, 3), 255, np.uint8)
            sheet = np.concatenate([sheet, gap, above], axis=1)
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        (self._folder / name).write_bytes(encoded.tobytes())


def figures(row: Row) -> str:
    """The figures of a frame as one line, for a caption."""
    parts = [f"t = {row['time_s']:.2f} s, frame {row['index']}"]
    for name, text in (("miou", "mean IoU"), ("confidence", "confidence"), ("unknown_share", "unknown")):
        if row[name] is not None:
            parts.append(f"{text} {100 * row[name]:.1f} %")
    if row["free_m2"] is not None:
        parts.append(f"free ground {row['free_m2']:.0f} m²")
    parts.append(f"{row['latency_ms']:.0f} ms")
    return ", ".join(parts)
