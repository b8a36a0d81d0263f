"""Evaluate one bag: every frame once, in recorded order, with what is damaged counted and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mfuser_ros
from mfuser_ros.bags.read import CAMERA_INFO
from mfuser_ros.bags.recording import Recorded, Recording
from mfuser_ros.evaluation.bag.cameras import find_cameras, scheme_of
from mfuser_ros.evaluation.bag.frames import Sums, rows_of, schema
from mfuser_ros.evaluation.bag.meter import GRID, Measured
from mfuser_ros.evaluation.bag.scheme import group
from mfuser_ros.evaluation.bag.settings import BagSettings, Edge
from mfuser_ros.evaluation.bag.state import CameraState, UnusableError
from mfuser_ros.evaluation.bag.stills import StillKeeper
from mfuser_ros.evaluation.bag.store import RowStore, batches
from mfuser_ros.evaluation.drive.birdseye import BirdsEye
from mfuser_ros.inference.segmenter import Segmenter

RESULT = "result.json"
FRAMES = "frames.parquet"
_BLOCK = 2**20


@dataclass(frozen=True)
class BagResult:
    """What the evaluation of one bag has left in its folder, beside `frames.parquet` and stills.

    Attributes:
        bag: its path, as it was given.
        key: hash of content and settings.
        groups: names of the groups that labels were scored by.
        group_members: class ids of each.
        road: group of the road, if any.
        frames: evaluated.
        expected: frames that the bag says it has on the evaluated topics; 0 where it does not say, or in a window.
        labelled: frames with a label.
        incomplete: whether part of the bag is missing.
        corrupt: messages that could not be used.
        damage: one line each for the first of them.
        notes: what else a reader should know, such as why there is no drivable area.
        settings: of the evaluation, see `BagSettings`.
        stills: pictures by what they are for, see `mfuser_ros.evaluation.bag.stills.Kept`.
    """

    bag: str
    key: str
    groups: list[str]
    group_members: list[list[int]]
    road: int | None
    frames: int
    expected: int
    labelled: int
    incomplete: bool
    corrupt: int
    damage: list[str]
    notes: list[str] = field(default_factory=list)
    stills: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # JSON

    def write(self, folder: Path) -> None:
        """Write into the folder; its presence says that the bag is done."""
        text = json.dumps(asdict(self), indent=1)
        (folder / RESULT).with_suffix(".unfinished").write_text(text + "\n", encoding="utf-8")
        (folder / RESULT).with_suffix(".unfinished").replace(folder / RESULT)

    @classmethod
    def read(cls, folder: Path) -> BagResult | None:
        """The result in a folder; None where the bag is not done."""
        try:
            return cls(**json.loads((folder / RESULT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def load_segmenter(settings: BagSettings) -> Segmenter:
    """The model that the settings ask for, in float32 on a CPU."""
    return mfuser_ros.load(
        settings.model,
        device=settings.device,
        threshold=settings.threshold,
        input_size=settings.size,
        vocabulary=settings.vocabulary,
    )


def key_of(recording: Recording, settings: BagSettings, segmenter: Segmenter) -> str:
    """Hash of what the result depends on: the bytes of the bag and of labels beside it, settings, model and version."""
    digest = hashlib.sha256()
    stated = settings.model_dump(mode="json", exclude={"model", "device", "labels"})
    stated |= {
        "model": segmenter.sha256, "device": segmenter.device.partition(":")[0], "version": mfuser_ros.__version__,
        "vocabulary": segmenter.vocabulary.model_dump(mode="json"), "labels": sorted(settings.labels),
    }  # fmt: skip
    digest.update(json.dumps(stated, sort_keys=True).encode())
    folders = [Path(value) for _, value in sorted(settings.labels.items()) if Path(value).is_dir()]
    names = [value for _, value in sorted(settings.labels.items()) if not Path(value).is_dir()]
    digest.update(json.dumps(names).encode())
    labels = [label for folder in folders for label in sorted(folder.glob("*.png"))]
    digest.update(json.dumps([label.name for label in labels]).encode())
    for file in [*recording.files, *labels]:
        digest.update(f"\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


class BagRun:
    """The evaluation of one bag into a folder. Use it as an iterator over its frames, then `finish`."""

    def __init__(
        self, bag: Path, folder: Path, settings: BagSettings, edge: Edge, segmenter: Segmenter, key: str,
        *, name: str | None = None,
    ) -> None:  # fmt: skip
        """Open the bag and see what an earlier run has done.

        Args:
            bag: its path.
            folder: for rows and stills.
            settings: of the evaluation.
            edge: turns messages into arrays.
            segmenter: the model, loaded as `load_segmenter` does.
            key: see `key_of`.
            name: of the bag in results; None: its path.

        Raises:
            InputError: the bag cannot be read at all, lacks a topic, or has labels that cannot be used.
        """
        self.bag, self.folder, self._settings, self._edge = bag, folder, settings, edge
        self._segmenter, self._key, self._name = segmenter, key, name or str(bag)
        self._recording = Recording(bag)
        topics = self._recording.topics()
        self.cameras = find_cameras(bag, topics, settings)
        scheme = scheme_of(self.cameras, Recording(bag), settings, segmenter.vocabulary)
        self._grouping = group(scheme, segmenter.vocabulary)
        frames = sum(-(-camera.frames // settings.every) for camera in self.cameras)
        self.expected = 0 if settings.is_windowed else frames
        self._notes: list[str] = []
        self._faults: list[str] = []
        self._stills = self._keeper(None)
        self._schema = schema(segmenter.vocabulary.names)

    def __iter__(self) -> Iterator[Measured | None]:
        """One item for each frame in its turn: None for those that an earlier run has done or that cannot be used."""
        with ExitStack() as stack:
            store = RowStore(self.folder, self._schema, self._snapshot)
            stack.callback(self._settle, store)
            self._go_on_from(store.state)
            recording = stack.enter_context(self._recording)
            states = {}
            for camera in self.cameras:
                beside = stack.enter_context(Recording(self.bag))
                states[camera.topic] = CameraState(
                    camera, self._settings, self._edge, self._segmenter, self._grouping, beside
                )
            infos = {camera.info_topic: states[camera.topic] for camera in self.cameras if camera.info_topic}
            for recorded in recording.messages([*states, *infos]):
                if recorded.kind == CAMERA_INFO:
                    infos[recorded.topic].info = recorded.message
                elif states[recorded.topic].wants(recorded):
                    yield self._measure(recorded, states[recorded.topic], store)
            self._notes += sorted({note for state in states.values() for note in state.notes})

    def _measure(self, recorded: Recorded, state: CameraState, store: RowStore) -> Measured | None:
        done = store.done.get(recorded.topic, -1)
        if recorded.index < done:
            return None
        measured, faults = None, []
        try:
            measured = state.measure(recorded)  # the last one that is done, too: the next is compared with it
        except UnusableError as error:
            faults.append(str(error))
        faults += state.faults
        state.faults.clear()
        if recorded.index == done:
            return None
        for fault in faults:
            if fault not in self._faults:  # stored with the rows before it by an earlier run
                self._faults.append(fault)
                self._recording.damage.corrupt(fault)
        if measured is None:
            return None
        measured.row["bag"] = self._name
        self._stills.add(measured)
        store.append(measured.row)
        return measured

    def _snapshot(self) -> dict[str, Any]:  # JSON
        return {"faults": self._faults, "stills": self._stills.state()}

    def _go_on_from(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self._faults = list(state["faults"])
            self._stills = self._keeper(state["stills"])
            for fault in self._faults:
                self._recording.damage.corrupt(fault)

    def _settle(self, store: RowStore) -> None:
        """Write what was measured, after an interruption too; then no file is left that nothing names."""
        store.flush()
        self._stills.sweep()

    def _keeper(self, state: dict[str, Any] | None) -> StillKeeper:
        vocabulary = self._segmenter.vocabulary
        birds_eye = BirdsEye(
            (GRID.rows, GRID.cols), resolution=GRID.resolution, x_min=GRID.x_min, y_min=GRID.y_min, size=(400, 600),
            vocabulary=vocabulary,
        )  # fmt: skip
        limit = self._settings.stills
        return StillKeeper(self.folder, vocabulary.palette(), birds_eye, limit=limit, state=state)

    def sums(self) -> Sums:
        """What the rows of the finished file add up to."""
        sums = Sums(self._segmenter.vocabulary.names, len(self._grouping.names))
        for row in rows_of(batches(self.folder / FRAMES)):
            sums.add(row)
        return sums

    def finish(self) -> BagResult:
        """Put the rows together and write the result; the run must have come to its end."""
        RowStore(self.folder, self._schema).finish(self.folder / FRAMES)
        sums = self.sums()
        damage = self._recording.damage
        if any(camera.labels for camera in self.cameras) and sums.frames and not sums.labelled:
            self._notes.append("no frame has a label: stamps or indices of the labels fit none of them")
        result = BagResult(
            bag=self._name,
            key=self._key,
            groups=list(self._grouping.names),
            group_members=[list(members) for members in self._grouping.members],
            road=self._grouping.road(self._segmenter.vocabulary),
            frames=sums.frames,
            expected=self.expected,
            labelled=sums.labelled,
            incomplete=damage.incomplete,
            corrupt=damage.messages,
            damage=damage.named,
            notes=self._notes,
            stills=self._stills.state()["kept"],
            settings=self._settings.model_dump(mode="json"),
        )
        result.write(self.folder)
        return result
