"""What `mfuser segment` is given: pictures, folders, videos and bags, and the name that each gets among the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mfuser_ros.bags import BagReader
from mfuser_ros.datasets import pictures, video
from mfuser_ros.datasets.video import VideoFrame
from mfuser_ros.errors import InputError
from mfuser_ros.node.images import to_rgb

BAG_SUFFIXES = (".mcap", ".db3")


@dataclass(frozen=True)
class Source:
    """A picture file.

    Attributes:
        path: the file.
        name: of its results, below the folder for results, without a suffix.
        count: number of pictures as the file says; 0 where it does not.
        rate_hz: pictures per second; None for a single picture.
    """

    path: Path
    name: Path
    count: int = 1
    rate_hz: float | None = None

    def frames(self) -> Iterator[VideoFrame]:
        """The pictures, one after the other, with their times since the first.

        Raises:
            InputError: the file does not decode, or ends early; the text names it.
        """
        yield VideoFrame(pictures.read_picture(self.path), 0.0)


class Video(Source):
    """A video file."""

    def frames(self) -> Iterator[VideoFrame]:
        yield from video.frames(self.path)


@dataclass(frozen=True)
class Bag(Source):
    """The pictures on one topic of a bag; their times are those of the header stamps."""

    topic: str = ""

    def frames(self) -> Iterator[VideoFrame]:
        first_ns = None
        with BagReader(self.path) as reader:
            for frame in reader.frames(self.topic):
                try:
                    picture = to_rgb(frame.message)
                except InputError as error:
                    raise InputError(f"{self.path}: picture {frame.index} of {self.topic}: {error}") from error
                first_ns = frame.stamp_ns if first_ns is None else first_ns
                yield VideoFrame(picture, (frame.stamp_ns - first_ns) / 1e9)


def find_sources(
    inputs: Sequence[Path], out: Path, *, topic: str | None = None, explain: Path | None = None
) -> tuple[list[Source], list[InputError]]:
    """The sources that the arguments of the command stand for, and what is wrong with the others.

    Results that lie below a folder of pictures are no input of a second run.

    Args:
        inputs: files and folders.
        out: folder for results.
        topic: picture topic of bags; None: the only one that they have.
        explain: folder for explanations, if any; like `out` it is no source when it lies in a folder of pictures.

    Raises:
        InputError: two sources would write the same file, or a source would be overwritten.
    """
    found: list[Source] = []
    refused: list[InputError] = []
    for path in inputs:
        try:
            found.extend(_sources_of(path, [out] if explain is None else [out, explain], topic))
        except InputError as error:
            refused.append(error)
    names = Counter(source.name for source in found)
    for source in found:
        if names[source.name] > 1:
            twins = " and ".join(str(other.path) for other in found if other.name == source.name)
            raise InputError(f"{twins}: would both write {out / source.name}.png: rename one or call twice")
        target = out / f"{source.name}.png"
        if source.rate_hz is None and target.exists() and target.samefile(source.path):
            raise InputError(f"{source.path}: would be overwritten by its mask: choose another --out")
    return found, refused


def _sources_of(path: Path, results: Sequence[Path], topic: str | None) -> list[Source]:
    if path.suffix.lower() in BAG_SUFFIXES or (path / "metadata.yaml").is_file():
        return [_bag(path, topic)]
    if path.is_dir():
        return [
            Source(file, file.relative_to(path).with_suffix(""))
            for file in pictures.find_pictures(path)
            if all(folder == path or folder.resolve() not in file.resolve().parents for folder in results)
        ]
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder: check the path")
    if path.suffix.lower() in video.SUFFIXES:
        header = video.info(path)
        return [Video(path, Path(path.stem), header.frames, header.rate_hz or 25.0)]
    return [Source(path, Path(path.stem))]


def _bag(path: Path, topic: str | None) -> Bag:
    with BagReader(path) as reader:
        chosen = reader.image_topic(topic)
        count = reader.count(chosen)
        first_ns, last_ns = reader.span_ns()
    rate_hz = (count - 1) * 1e9 / (last_ns - first_ns) if count > 1 and last_ns > first_ns else 10.0
    return Bag(path, Path(path.stem), count, rate_hz, chosen)
