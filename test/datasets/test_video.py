"""What is written as a video is read back: colours, times, sizes; faults are named."""

import struct

import av
import numpy as np
import pytest

from mfuser_ros.datasets import video
from mfuser_ros.errors import InputError

COLOURS = [(200, 30, 40), (20, 180, 60), (30, 60, 220), (250, 250, 250), (0, 0, 0)]


def flat(colour: tuple[int, int, int], height: int = 64, width: int = 96) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def write(path, pictures, times=None, rate_hz=10.0):
    with video.VideoWriter(path, rate_hz=rate_hz) as writer:
        for picture, time_s in zip(pictures, times or [None] * len(pictures), strict=True):
            writer.write(picture, time_s)


def test_colours_and_times_come_back(tmp_path):
    path = tmp_path / "folder" / "colours.mp4"
    write(path, [flat(colour) for colour in COLOURS])

    frames = list(video.frames(path))

    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=1e-4)
    for frame, colour in zip(frames, COLOURS, strict=True):
        assert frame.picture.dtype == np.uint8
        assert frame.picture.shape == (64, 96, 3)
        # 8-bit YCbCr and crf 21 move a flat colour by a few levels
        np.testing.assert_allclose(frame.picture[32, 48].astype(int), colour, atol=6)


def test_uneven_times_come_back(tmp_path):
    path = tmp_path / "uneven.mp4"
    write(path, [flat(COLOURS[0])] * 4, times=[0.0, 0.04, 0.16, 1.5])

    assert [frame.time_s for frame in video.frames(path)] == pytest.approx([0.0, 0.04, 0.16, 1.5], abs=1e-4)


def test_info_agrees_with_the_frames(tmp_path):
    path = tmp_path / "info.mp4"
    write(path, [flat(colour) for colour in COLOURS], rate_hz=25)

    about = video.info(path)

    assert (about.width, about.height, about.frames) == (96, 64, 5)
    assert about.rate_hz == pytest.approx(25)


def test_file_is_h264_yuv420p_for_every_player(tmp_path):
    path = tmp_path / "plays.mp4"
    write(path, [flat(COLOURS[1])])

    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_odd_sides_gain_one_line(tmp_path):
    path = tmp_path / "odd.mp4"
    write(path, [flat(COLOURS[2], height=33, width=65)])

    assert next(video.frames(path)).picture.shape == (34, 66, 3)


def test_video_of_a_turned_phone_is_upright(tmp_path):
    picture = np.hstack([flat(COLOURS[0], width=48), flat(COLOURS[2], width=48)])  # red left, blue right
    path = tmp_path / "phone.mp4"
    write(path, [picture])
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2: 16.16 fixed point a, b, u, c, d, v, ...
    content[matrix : matrix + 20] = struct.pack(">5i", 0, 1 << 16, 0, -(1 << 16), 0)  # a quarter turn clockwise
    path.write_bytes(content)

    upright = next(video.frames(path)).picture

    assert upright.shape == (96, 64, 3)
    np.testing.assert_allclose(upright[10, 32].astype(int), COLOURS[0], atol=6)  # left has become the top
    np.testing.assert_allclose(upright[85, 32].astype(int), COLOURS[2], atol=6)


def test_nothing_is_left_after_an_exception(tmp_path):
    def fail_after_one_picture():
        with video.VideoWriter(tmp_path / "half.mp4", rate_hz=10) as writer:
            writer.write(flat(COLOURS[0]))
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_one_picture()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("second", "time_s", "said"),
    [
        (flat(COLOURS[0], height=32), None, "the first one was 96x64"),
        (flat(COLOURS[0]).astype(np.float32), None, "uint8 RGB"),
        (flat(COLOURS[0])[:, :, 0], None, "uint8 RGB"),
        (flat(COLOURS[0]), 0.0, "does not follow"),
    ],
)
def test_wrong_picture_is_refused(tmp_path, second, time_s, said):
    with pytest.raises(InputError, match=said):
        write(tmp_path / "wrong.mp4", [flat(COLOURS[0]), second], times=[0.0, time_s])


def test_empty_video_is_not_written(tmp_path):
    with pytest.raises(InputError, match="no picture was written"):
        write(tmp_path / "empty.mp4", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"this is no video" * 100])
def test_file_that_is_no_video_is_named(tmp_path, content):
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"broken\.mp4: no readable video"):
        next(video.frames(path))


def test_truncated_video_ends_with_its_name(tmp_path):
    path = tmp_path / "whole.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (12, 64, 96, 3), np.uint8)
    write(path, list(noise))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    read = video.frames(cut)
    assert next(read).picture.shape == (64, 96, 3)
    with pytest.raises(InputError, match=r"cut\.mp4: (the file ends after \d+ of 12 frames|frame \d+ does not decode)"):
        list(read)


def test_missing_video_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.mp4: no such file"):
        video.info(tmp_path / "none.mp4")
