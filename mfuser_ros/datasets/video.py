"""Videos as RGB pictures with times, and pictures as an H.264 video, by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
import numpy as np

from mfuser_ros.errors import InputError

SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
"""File names that are taken for videos, in lower case."""

_CLOCK = Fraction(1, 90_000)  # fine enough for every usual frame rate, as MPEG itself uses it
_BT709 = 1  # the same number in FFmpeg's tables of matrices, transfer curves and primaries
_LIMITED_RANGE = 1


class VideoFrame(NamedTuple):
    """One picture of a video."""

    picture: np.ndarray  # uint8 RGB (H, W, 3), upright
    time_s: float  # since the beginning of the video


class VideoInfo(NamedTuple):
    """What the header of a video says; the frames themselves may differ."""

    width: int
    height: int
    rate_hz: float
    frames: int  # 0 where the header does not say


def info(path: str | Path) -> VideoInfo:
    """Size as stored, mean rate and number of frames of a video, without decoding it.

    Raises:
        InputError: the file is missing, no video, or has no picture stream.
    """
    with _open(Path(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 0)
        count = int(stream.frames)
        if not count and container.duration and rate:
            count = round(container.duration / av.time_base * rate)
        return VideoInfo(stream.codec_context.width, stream.codec_context.height, rate, count)


def frames(path: str | Path) -> Iterator[VideoFrame]:
    """The pictures of a video in the order of their times, one after the other, turned upright.

    Raises:
        InputError: the file is missing or no video, a frame does not decode, or the file ends before its last frame;
            the text names the file and the frame. What came before has been yielded.
    """
    path = Path(path)
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        first_s: float | None = None
        packets = number = 0
        try:
            for packet in container.demux(stream):
                packets += packet.size > 0  # the last, empty one flushes the decoder
                for frame in packet.decode():
                    time_s = float(frame.time) if frame.time is not None else number / float(stream.average_rate or 25)
                    first_s = time_s if first_s is None else first_s
                    picture = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                    yield VideoFrame(np.ascontiguousarray(picture), time_s - first_s)
                    number += 1
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: frame {number} does not decode ({error.strerror}): record it again") from error
        if packets < stream.frames or number == 0:
            expected = f" of {stream.frames}" if stream.frames else ""
            raise InputError(f"{path}: the file ends after {number}{expected} frames: copy or record it again")


class VideoWriter:
    """Writes pictures of one size as an H.264 mp4 (yuv420p, BT.709, plays everywhere).

    Use it in a ``with`` block. The file appears at `path` when the block ends well; after an exception nothing is left.

    Args:
        path: the .mp4 to write; its folder is made.
        rate_hz: frames per second where `write` is given no times.
        crf: x264's constant rate factor: 18 is hardly told from the source, 28 is small.
    """

    def __init__(self, path: str | Path, *, rate_hz: float, crf: int = 21) -> None:
        if rate_hz <= 0:
            raise InputError(f"rate_hz is {rate_hz}: give a rate above 0")
        self.path = Path(path)
        self._partial = self.path.with_name(f".{self.path.name}.part")
        self._rate = Fraction(rate_hz).limit_denominator(1001)
        self._crf = crf
        self._shape: tuple[int, ...] = ()
        self._last_pts = -1
        self._count = 0

    def __enter__(self) -> VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._container = av.open(str(self._partial), "w", format="mp4", options={"movflags": "faststart"})
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}): choose another folder") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._count:
            self._container.mux(self._stream.encode())
            self._container.close()
            self._partial.replace(self.path)
            return
        self._container.close()
        self._partial.unlink(missing_ok=True)
        if kind is None:
            raise InputError(f"{self.path}: no picture was written: a video needs one at least")

    def write(self, picture: np.ndarray, time_s: float | None = None) -> None:
        """Add a picture.

        Args:
            picture: uint8 RGB (H, W, 3), the same size as the first. An odd side is widened by repeating its last line,
                because H.264 at 4:2:0 stores pairs.
            time_s: time since the beginning, later than that of the last picture; None follows `rate_hz`.

        Raises:
            InputError: another size or type than the first picture, or a time that does not advance.
        """
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise InputError(f"{self.path}: picture is {picture.dtype} {picture.shape}: give uint8 RGB (H, W, 3)")
        height, width = picture.shape[:2]
        if not self._count:
            self._shape = picture.shape
            self._open_stream(width + width % 2, height + height % 2)
        if picture.shape != self._shape:
            raise InputError(
                f"{self.path}: picture is {width}x{height}, the first one was {self._shape[1]}x{self._shape[0]}"
            )
        seconds = self._count / self._rate if time_s is None else Fraction(time_s)
        pts = round(seconds / _CLOCK)
        if pts <= self._last_pts:
            raise InputError(
                f"{self.path}: time {float(seconds):.6f} s does not follow the last one: sort the pictures"
            )
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE
        )
        frame.pts, frame.time_base = pts, _CLOCK
        self._container.mux(self._stream.encode(frame))
        self._last_pts = pts
        self._count += 1

    def _open_stream(self, width: int, height: int) -> None:
        self._stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": str(self._crf)})
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = _CLOCK
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE


def _open(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        raise InputError(f"{path}: no such file: give the path of a video")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: no readable video ({error.strerror}): give an H.264 mp4 or the like") from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: holds no pictures: give a video")
    return container
