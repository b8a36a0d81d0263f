"""Measures how steady masks are, without and with the filter, and writes docs/steady.md from it.

    python docs/steady.py --replay FOLDER --data DATA --device cuda

FOLDER holds the drives named below; DATA camvid/day, whose 15 Hz stretch has labels. The network runs once a frame.
All figures go into docs/benchmarks/steady_NAME.json. Without --replay the page is written anew from the JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tables import filled

import mfuser_ros
from mfuser_ros.commands.progress import track
from mfuser_ros.datasets import video
from mfuser_ros.datasets.config import DatasetConfig, load_config
from mfuser_ros.datasets.opening import open_split
from mfuser_ros.evaluation.metrics import Confusion
from mfuser_ros.evaluation.temporal import FlipCounter
from mfuser_ros.inference import Segmentation, Segmenter, Steady
from mfuser_ros.vocabulary import UNKNOWN

ROOT = Path(__file__).resolve().parents[1]
DRIVES = {  # file: first frame; the second drive has a cut at frame 225
    "city_kitti_1242x376.mp4": 0,
    "highway_1280x720.mp4": 191,
    "highway2_960x540.mp4": 0,
}
CAMVID_HZ = 30  # of the numbers in the names of its frames
LABELLED_STEP = 2  # of these numbers, in the stretch whose every second frame has a label

Json = dict[str, Any]


class Single(NamedTuple):
    """A frame and what the network alone says of it."""

    result: Segmentation
    time_s: float
    label: np.ndarray | None = None  # (H, W) uint8 ids of the set


def of_drive(segmenter: Segmenter, file: Path, start: int, count: int) -> Iterator[Single]:
    """Some frames of a video."""
    for frame in islice(video.frames(file), start, start + count):
        yield Single(segmenter(frame.picture), frame.time_s)


def of_labelled(segmenter: Segmenter, config: DatasetConfig, data: Path, count: int) -> Iterator[Single]:
    """The longest stretch of camvid/day without a gap, at 15 frames a second."""
    dataset = open_split(config, "day", data)
    for index in longest_stretch(dataset.stems)[:count]:
        sample = dataset[index]
        yield Single(segmenter(sample.picture), frame_number(sample.stem)[1] / CAMVID_HZ, sample.label)


def longest_stretch(stems: list[str]) -> list[int]:
    """Indices of the longest run of frames that are LABELLED_STEP apart."""
    best: list[int] = []
    run: list[int] = []
    for index, stem in enumerate(stems):
        sequence, number = frame_number(stem)
        follows = run and frame_number(stems[run[-1]]) == (sequence, number - LABELLED_STEP)
        run = [*run, index] if follows else [index]
        best = max(best, run, key=len)
    return best


def frame_number(stem: str) -> tuple[str, int]:
    """Sequence and number of a frame of CamVid: 0016E5_08001 and the like."""
    sequence, _, number = stem.partition("_")
    return sequence, int(re.sub(r"\D", "", number))


def measure(name: str, singles: Iterable[Single], steady: Steady, config: DatasetConfig | None = None) -> Json:
    """Flips without and with the filter, what the filter costs, and scores where there are labels of `config`."""
    drivable = steady.segmenter.vocabulary.ids_with_role(["drivable"])
    before, after, of_labels = FlipCounter(drivable), FlipCounter(drivable), FlipCounter([])
    scores = None if config is None else (Confusion.empty(len(config.labels)), Confusion.empty(len(config.labels)))
    cpu_ms, unknown, frames = [], np.zeros(2), 0
    steady.reset()
    for single in singles:
        begin = time.process_time()
        filtered = steady.update(single.result, time_s=single.time_s)
        cpu_ms.append((time.process_time() - begin) * 1e3)
        picture, frames = single.result.picture, frames + 1
        before.add(picture, single.result.mask, single.time_s)
        after.add(picture, filtered.mask, single.time_s)
        unknown += [float((mask == UNKNOWN).mean()) for mask in (single.result.mask, filtered.mask)]
        if single.label is not None and config is not None and scores is not None:
            of_labels.add(picture, single.label, single.time_s)
            for confusion, mask in zip(scores, (single.result.mask, filtered.mask), strict=True):
                confusion.add(single.label, grouped(mask, config))
    content: Json = {
        "input": name,
        "frames": frames,
        "size": f"{picture.shape[1]}x{picture.shape[0]}",
        "single": before.flips.summary() | {"unknown": unknown[0] / frames},
        "steady": after.flips.summary() | {"unknown": unknown[1] / frames},
        "filter_cpu_ms": {"p50": float(np.median(cpu_ms[1:])), "p95": float(np.quantile(cpu_ms[1:], 0.95))},
    }
    if scores is not None and config is not None:
        content["labels"] = of_labels.flips.summary()
        for key, confusion in zip(("single", "steady"), scores, strict=True):
            content[key] |= _scores(confusion, config)
    return content


def grouped(mask: np.ndarray, config: DatasetConfig) -> np.ndarray:
    """Class ids as label ids of a set; 255 stays."""
    table = np.full(256, UNKNOWN, np.uint8)
    for label in config.labels:
        table[list(label.members)] = label.id
    return np.asarray(table[mask])


def _scores(confusion: Confusion, config: DatasetConfig) -> Json:
    scores = confusion.scores()
    road = next(label.id for label in config.labels if 0 in label.members)
    return {
        "miou": scores.miou,
        "road_precision": None if np.isnan(scores.precision[road]) else float(scores.precision[road]),
        "road_recall": None if np.isnan(scores.recall[road]) else float(scores.recall[road]),
    }


def tables(content: Json) -> dict[str, str]:
    """Every generated part of the page by its mark."""
    drives = content["drives"]
    flips = [
        "| drive | frames | flips | less by | drivable or not | jumps | unknown, % of the pixels |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in drives:
        single, steady = entry["single"], entry["steady"]
        rates = [
            f"{_rate(single[key])} -> **{_rate(steady[key])}**"
            for key in ("flips_per_s", "drivable_flips_per_s", "jumps_per_s")
        ]
        less = _less(single["flips_per_s"], steady["flips_per_s"])
        flips.append(
            f"| {entry['input']} | {entry['frames']} | {rates[0]} | {less} | {rates[1]} | {rates[2]} | "
            f"{100 * single['unknown']:.1f} -> {100 * steady['unknown']:.1f} |"
        )
    scores = [
        "| stretch | frames | | mIoU | road precision | road recall | flips / s |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in (entry for entry in drives if "labels" in entry):
        for key in ("single", "steady"):
            row = entry[key]
            figures = " | ".join(_percent(row[name]) for name in ("miou", "road_precision", "road_recall"))
            scores.append(f"| {entry['input']} | {entry['frames']} | {key} | {figures} | {_rate(row['flips_per_s'])} |")
        of_labels = _rate(entry["labels"]["flips_per_s"])
        scores.append(f"| {entry['input']} | {entry['frames']} | the labels themselves | | | | {of_labels} |")
    cost = ["| size | CPU ms p50 | p95 |", "|---|---|---|"]
    cost += [
        f"| {entry['size']} | {entry['filter_cpu_ms']['p50']:.1f} | {entry['filter_cpu_ms']['p95']:.1f} |"
        for entry in drives
    ]
    facts = (
        f"`{content['model']['name']}` ({content['model']['sha256'][:12]}), threshold {content['threshold']:g}, "
        f"{content['device']}."
    )
    return {"facts": facts, "flips": "\n".join(flips), "scores": "\n".join(scores), "cost": "\n".join(cost)}


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _less(before: float | None, after: float | None) -> str:
    return "-" if not before or after is None else f"{100 * (1 - after / before):.0f} %"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def measure_all(segmenter: Segmenter, replay: Path, data: Path | None, frames: int) -> Json:
    """All drives, and the labelled stretch where its set is there."""
    steady = Steady(segmenter)
    drives = []
    for file, start in DRIVES.items():
        singles = track(of_drive(segmenter, replay / file, start, frames), total=frames, what=file, quiet=False)
        drives.append(measure(f"{Path(file).stem}, from frame {start}", singles, steady))
    if data is not None:
        config = load_config("camvid")
        singles = track(of_labelled(segmenter, config, data, frames), total=frames, what="camvid/day", quiet=False)
        drives.append(measure("camvid/day, 15 Hz stretch", singles, steady, config))
    return summary(segmenter, drives)


def summary(segmenter: Segmenter, drives: list[Json]) -> Json:
    """What is written into the JSON."""
    return {
        "version": 1,
        "what": "steady",
        "model": {"name": segmenter.name, "sha256": segmenter.sha256},
        "threshold": segmenter.threshold,
        "device": segmenter.device,
        "drives": drives,
    }


def write(content: Json, folder: Path) -> None:
    """JSON and page of one model below the folder for documents."""
    file = folder / "benchmarks" / f"steady_{content['model']['name']}.json"
    file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    page = folder / "steady.md"
    page.write_text(filled(page.read_text(encoding="utf-8"), tables(content)), encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", type=Path, help="folder of the drives; without it nothing is measured")
    parser.add_argument("--data", type=Path, help="folder of the data sets, for camvid/day")
    parser.add_argument("--model", default="small", help="name in models/ or path of a .safetensors")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--frames", type=int, default=100, help="of each drive")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder with steady.md and benchmarks/")
    chosen = parser.parse_args()
    if chosen.replay is None:
        file = chosen.out / "benchmarks" / f"steady_{chosen.model}.json"
        content = json.loads(file.read_text(encoding="utf-8"))
    else:
        cv2.setNumThreads(1)  # CPU time is then that of one core
        segmenter = mfuser_ros.load(chosen.model, device=chosen.device)
        content = measure_all(segmenter, chosen.replay, chosen.data, chosen.frames)
    write(content, chosen.out)


if __name__ == "__main__":
    main()
