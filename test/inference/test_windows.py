"""Sliding windows cover the picture as published."""

from __future__ import annotations

import pytest
import torch

from mfuser_ros.inference.windows import slide, starts


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1024, [0, 341, 512]),  # spec 5.6
        (2048, [0, 341, 682, 1023, 1364, 1536]),
        (720, [0, 208]),
        (1280, [0, 341, 682, 768]),
        (512, [0]),
        (513, [0, 1]),
    ],
)
def test_window_starts_are_the_published_ones(size, expected):
    assert starts(size, 512, 341) == expected


def test_side_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="500 px is shorter than the window of 512 px"):
        starts(500, 512, 341)


def test_overlapping_windows_are_averaged():
    pictures = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 3, 4, 6).contiguous()
    calls = []

    def brightness_of_the_window(windows: torch.Tensor) -> torch.Tensor:
        calls.append(len(windows))
        return windows.mean((1, 2, 3), keepdim=True)

    scores = slide(brightness_of_the_window, pictures, 4, 2, batch=2)

    # windows at 0 (mean of 0..3 = 1.5) and 2 (mean of 2..5 = 3.5); columns 2 and 3 see both
    torch.testing.assert_close(scores[0, 0, 0], torch.tensor([1.5, 1.5, 2.5, 2.5, 3.5, 3.5]))
    assert calls == [2]
