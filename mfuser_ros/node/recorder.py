"""Turns the answers of the node into a film, a bag of masks and a page, one frame at a time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from mfuser_ros.bags import BagWriter
from mfuser_ros.datasets.video import VideoWriter
from mfuser_ros.evaluation.drive.birdseye import BirdsEye
from mfuser_ros.evaluation.drive.page import render_page
from mfuser_ros.evaluation.drive.panels import GRID, Composer, Shot
from mfuser_ros.evaluation.drive.record import DriveRecord, FrameRecord, class_shares, drivable_distance
from mfuser_ros.evaluation.report.page import Still
from mfuser_ros.node.images import to_rgb
from mfuser_ros.node.player import Answer
from mfuser_ros.vocabulary import Vocabulary

STILLS = 3
MASK_TOPIC = "/mfuser/front/mask"
CLASS_MAP_TOPIC = "/mfuser/class_map"
NO_CONTACTS = np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class DriveFiles:
    """Where the results of a drive lie."""

    film: Path
    masks: Path
    page: Path

    @classmethod
    def below(cls, folder: Path) -> DriveFiles:
        """The usual names in `folder`."""
        return cls(folder / "overlay.mp4", folder / "masks", folder / "summary.html")


@dataclass(frozen=True)
class DriveNotes:
    """What film and page say of a drive.

    Attributes:
        title: heading of both.
        pose: one line on where the camera's pose is from, or why there is no grid.
        facts: tables of the page: heading -> name -> value.
    """

    title: str
    pose: str
    facts: Mapping[str, Mapping[str, str]]


class DriveRecorder:
    """Writes film and masks while answers come, and the page at the end. Use it as a context manager."""

    def __init__(
        self, files: DriveFiles, vocabulary: Vocabulary, *, frames: int, rate_hz: float, title: str, pose_note: str
    ) -> None:
        """Plan the results.

        Args:
            files: to write; none of them exists.
            vocabulary: of the masks.
            frames: how many answers will come.
            rate_hz: of the frames in the recording.
            title: of the film.
            pose_note: a line of the film on the camera's pose.
        """
        self.record = DriveRecord(vocabulary)
        self._files, self._frames = files, frames
        self._title, self._pose_note = title, pose_note
        self._film = VideoWriter(files.film, rate_hz=rate_hz)
        self._masks = BagWriter(files.masks, compress=True)
        self._composer: Composer | None = None
        self._first_ns = 0
        self._stills: list[Still] = []
        self._open = ExitStack()

    def __enter__(self) -> DriveRecorder:
        with ExitStack() as opening:
            opening.enter_context(self._film)
            opening.enter_context(self._masks)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    def class_map(self, text: str, *, stamp_ns: int) -> None:
        """Keep the node's class map beside the masks."""
        self._masks.latched_text(CLASS_MAP_TOPIC, text, stamp_ns=stamp_ns)

    def add(self, answer: Answer) -> None:
        """Take in the answer to the next frame."""
        picture = to_rgb(answer.frame.message)
        number = len(self.record.frames) + 1
        if number == 1:
            self._first_ns = answer.frame.stamp_ns
            self._composer = self._plan(answer, picture)
        record = self._figures(answer)
        self.record.frames.append(record)
        self._masks.mask(MASK_TOPIC, answer.mask, stamp_ns=answer.frame.stamp_ns, frame_id=answer.mask_frame_id)
        occupancy = answer.grid.occupancy if answer.grid is not None else None
        contacts = answer.contacts if answer.contacts is not None else NO_CONTACTS
        assert self._composer is not None
        shot = self._composer.draw(Shot(picture, answer.mask, occupancy, contacts, record, number))
        self._film.write(shot)
        if number - 1 in {round(index * (self._frames - 1) / (STILLS - 1)) for index in range(STILLS)}:
            self._stills.append(Still(shot, f"Frame {number}, {record.time_s:.2f} s into the recording"))

    def write_page(self, notes: DriveNotes, times_ms: Mapping[str, list[float]]) -> None:
        """Write the page.

        Args:
            notes: what it says besides the figures.
            times_ms: milliseconds of the node's own work by the name of the step.
        """
        page = render_page(
            self.record,
            title=notes.title,
            stills=self._stills,
            times_ms=times_ms,
            facts=notes.facts,
            pose_note=notes.pose,
        )
        self._files.page.write_text(page, encoding="utf-8")

    def _plan(self, answer: Answer, picture: np.ndarray) -> Composer:
        vocabulary = self.record.vocabulary
        birds_eye = None
        if answer.grid is not None:
            rows, cols = answer.grid.occupancy.shape
            birds_eye = BirdsEye(
                (rows, cols),
                resolution=answer.grid.resolution,
                x_min=answer.grid.x_min,
                y_min=answer.grid.y_min,
                size=GRID,
                vocabulary=vocabulary,
            )
        height, width = picture.shape[:2]
        return Composer(
            vocabulary,
            title=self._title,
            frames=self._frames,
            picture_size=(width, height),
            birds_eye=birds_eye,
            notes=(self._pose_note,),
        )

    def _figures(self, answer: Answer) -> FrameRecord:
        distance = area = None
        if answer.grid is not None:
            area = int((answer.grid.occupancy == 0).sum()) * answer.grid.resolution**2
            distance = drivable_distance(
                answer.grid.occupancy,
                resolution=answer.grid.resolution,
                x_min=answer.grid.x_min,
                y_min=answer.grid.y_min,
            )
        return FrameRecord(
            time_s=(answer.frame.stamp_ns - self._first_ns) / 1e9,
            round_trip_ms=answer.round_trip_ms,
            shares=class_shares(answer.mask, len(self.record.vocabulary)),
            confidence=None if answer.confidence is None else float(answer.confidence.mean()) / 255,
            drivable_m=distance,
            free_m2=area,
        )
