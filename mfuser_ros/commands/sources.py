"""What `mfuser segment` is given: pictures, folders and videos, and the name that each gets among the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mfuser_ros.datasets import pictures, video
from mfuser_ros.datasets.video import VideoFrame, VideoInfo
from mfuser_ros.errors import InputError


@dataclass(frozen=True)
class Source:
    """A picture, or a video."""

    path: Path
    name: Path  # of its results, below the folder for results, without a suffix
    video: VideoInfo | None  # None for a picture

    @property
    def count(self) -> int:
        """Number of pictures as the file says; 0 where a video does not say it."""
        return self.video.frames if self.video else 1

    def frames(self) -> Iterator[VideoFrame]:
        """The pictures, one after the other.

        Raises:
            InputError: the file does not decode, or ends early; the text names it.
        """
        if self.video:
            yield from video.frames(self.path)
        else:
            yield VideoFrame(pictures.read_picture(self.path), 0.0)


def find_sources(inputs: Sequence[Path], out: Path) -> tuple[list[Source], list[InputError]]:
    """The sources that the arguments of the command stand for, and what is wrong with the others.

    Results that lie below a folder of pictures are no input of a second run.

    Args:
        inputs: files and folders.
        out: folder for results.

    Raises:
        InputError: two sources would write the same file, or a source would be overwritten.
    """
    found: list[Source] = []
    refused: list[InputError] = []
    for path in inputs:
        try:
            found.extend(_sources_of(path, out))
        except InputError as error:
            refused.append(error)
    names = Counter(source.name for source in found)
    for source in found:
        if names[source.name] > 1:
            twins = " and ".join(str(other.path) for other in found if other.name == source.name)
            raise InputError(f"{twins}: would both write {out / source.name}.png: rename one or call twice")
        target = out / f"{source.name}.png"
        if not source.video and target.exists() and target.samefile(source.path):
            raise InputError(f"{source.path}: would be overwritten by its mask: choose another --out")
    return found, refused


def _sources_of(path: Path, out: Path) -> list[Source]:
    if path.is_dir():
        return [
            Source(file, file.relative_to(path).with_suffix(""), None)
            for file in pictures.find_pictures(path)
            if out == path or out.resolve() not in file.resolve().parents
        ]
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder: check the path")
    return [Source(path, Path(path.stem), video.info(path) if path.suffix.lower() in video.SUFFIXES else None)]
