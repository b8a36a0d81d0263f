"""The engine of a GPU: its states, its cache of shapes, and what it does when the memory is short.

On a CPU it records nothing, all else is the same; the kernels then run in Triton's interpreter, or plainly.
"""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mfuser_ros.inference import engine as engines
from mfuser_ros.inference.engine import Engine
from mfuser_ros.network import fused

CPU = torch.device("cpu")
DEADLINE_S = 30


def brightness(batch: torch.Tensor) -> torch.Tensor:
    """Two classes, dark and bright, at a quarter of the size."""
    bright = F.avg_pool2d(batch.mean(1, keepdim=True), 4) / 255
    return torch.cat([1 - bright, bright], 1)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def halves(height: int, width: int) -> np.ndarray:
    """Dark on the left, bright on the right."""
    made = np.zeros((height, width, 3), np.uint8)
    made[:, width // 2 :] = 255
    return made


def test_answer_has_the_size_of_the_picture_and_blanks_the_unsure():
    (answer,) = Engine(brightness, CPU)([halves(32, 64)], (16, 32), 0.95)

    assert answer.labels.shape == answer.mask.shape == answer.confidence.shape == (32, 64)
    assert not answer.labels[:, :30].any()
    assert (answer.labels[:, 34:] == 1).all()
    assert (answer.confidence[:, [0, 63]] == 255).all()
    border = answer.confidence < round(0.95 * 255)
    assert 0 < border.mean() < 0.3
    assert (answer.mask[border] == 255).all()
    assert (answer.mask[:, [0, 63]] == [0, 1]).all()
    assert answer.finite


def test_scores_that_are_no_numbers_are_told():
    engine = Engine(lambda batch: brightness(batch) * float("nan"), CPU)

    assert not engine([halves(8, 8)], (8, 8), 0.0)[0].finite


def test_new_shape_runs_plainly_until_a_thread_has_compiled(caplog):
    calls: list[tuple[str, bool]] = []
    may_end = threading.Event()

    def infer(batch: torch.Tensor) -> torch.Tensor:
        name = threading.current_thread().name
        calls.append((name, fused.is_plain()))
        if name == "mfuser-compiler":
            assert may_end.wait(DEADLINE_S)
        return brightness(batch)

    engine = Engine(infer, CPU)
    caplog.set_level(logging.INFO, logger="mfuser_ros")
    for _ in range(3):
        engine([halves(8, 8)], (8, 8), 0.0)
    assert engine.state == "plain"
    may_end.set()
    engine.prepare(1, (8, 8), (8, 8))

    assert engine.state == str(engine) == "eager"  # a CPU records nothing
    ours = [plain for name, plain in calls if name != "mfuser-compiler"]
    assert ours[:3] == [True] * 3
    assert ours[-1] is False
    assert [plain for name, plain in calls if name == "mfuser-compiler"] == [False]
    assert "pictures of 8x8 run eager" in caplog.text


def test_kernels_that_do_not_compile_leave_plain_masks_and_one_warning(caplog):
    def infer(batch: torch.Tensor) -> torch.Tensor:
        if not fused.is_plain():
            raise OSError("no ptxas\nhere")
        return brightness(batch)

    engine = Engine(infer, CPU)
    engine.prepare(1, (8, 8), (8, 8))
    answers = [engine([halves(8, 8)], (8, 8), 0.0) for _ in range(3)]

    assert all((answer.labels == [0] * 4 + [1] * 4).all() for (answer,) in answers)
    assert engine.state == "plain"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "no Triton kernels, pictures go on in plain torch: no ptxas here"
    ]


def test_graph_that_cannot_be_recorded_leaves_eager_masks_and_one_warning(monkeypatch, caplog):
    def refuse(*_, **__):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "graph", refuse)
    engine = Engine(brightness, CPU)
    engine.prepare(1, (8, 8), (8, 8))
    (plan,) = engine._plans.values()
    plan._recordable = True  # as on a GPU

    labels = [engine([halves(8, 8)], (8, 8), 0.0)[0].labels for _ in range(3)]

    assert engine.state == "eager"
    assert all((found == [0] * 4 + [1] * 4).all() for found in labels)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "no CUDA graph, pictures go on kernel by kernel: operation not permitted when stream is capturing"
    ]


def test_batch_that_does_not_fit_is_halved_until_it_fits_and_stays_so(caplog):
    batches: list[int] = []

    def infer(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        batches.append(len(batch))
        return brightness(batch)

    engine = Engine(infer, CPU)
    pictures = [picture(8, 8, seed) for seed in range(9)]

    answers = engine(pictures, (8, 8), 0.0)

    assert engine.largest_batch == 2
    assert str(engine) == "plain, 2 pictures at once after a lack of memory"
    expected = [Engine(brightness, CPU)([one], (8, 8), 0.0)[0] for one in pictures]
    assert len(answers) == 9
    for found, alone in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(found.labels, alone.labels)
    assert set(batches) == {2, 1}
    assert "out of memory with 9 pictures: 4 at once from now on" in caplog.text


def test_single_picture_that_does_not_fit_shrinks_the_work_then_reports():
    windows = [4]

    def infer(batch: torch.Tensor) -> torch.Tensor:
        if windows[0] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return brightness(batch)

    def shrink() -> bool:
        windows[0] //= 2
        return True

    assert Engine(infer, CPU, shrink=shrink)([halves(8, 8)], (8, 8), 0.0)[0].finite
    windows[0] = 4
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Engine(infer, CPU)([halves(8, 8)], (8, 8), 0.0)


def test_shapes_are_kept_up_to_a_number_and_the_oldest_goes(monkeypatch):
    monkeypatch.setattr(engines, "_SHAPES", 2)
    engine = Engine(brightness, CPU)

    for width in (8, 12, 8, 16):
        engine([picture(8, width)], (8, width), 0.0)

    assert [key[1] for key in engine._plans] == [(8, 8), (8, 16)]
    engine.forget()
    assert not engine._plans


def test_threshold_may_change_from_call_to_call():
    engine = Engine(brightness, CPU)

    shares = [(engine([picture(8, 8)], (8, 8), threshold)[0].mask == 255).mean() for threshold in (0.0, 1.0, 0.0)]

    assert shares[0] == shares[2] == 0
    assert shares[1] > 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: nothing is recorded on a CPU")
def test_recorded_graph_gives_what_the_plain_run_gives():
    device = torch.device("cuda", 0)
    engine = Engine(brightness, device)
    pictures = [picture(33, 57, seed) for seed in range(2)]
    plain = engine(pictures, (16, 32), 0.6)

    engine.prepare(2, (33, 57), (16, 32))
    recorded = engine(pictures, (16, 32), 0.6)

    assert engine.state == "recorded"
    for found, expected in zip(recorded, plain, strict=True):
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert np.abs(found.confidence.astype(int) - expected.confidence).max() <= 1
