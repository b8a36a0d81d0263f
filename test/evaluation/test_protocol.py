"""The published protocol against its own words, and the single pass."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mfuser_ros import vocabulary
from mfuser_ros.datasets.config import load_config
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.evaluation.protocol import Published, SinglePass, choose, within
from mfuser_ros.inference.segmenter import Segmenter
from mfuser_ros.network.config import EVA02_L, SMALL, WindowInput
from mfuser_ros.network.model import MFuser, assemble

CONFIGS = Path(__file__).parents[2] / "config" / "datasets"
CITYSCAPES = load_config(CONFIGS / "cityscapes.yaml")
BDD = load_config(CONFIGS / "bdd100k.yaml")


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(
        MFuser(SMALL),
        vocabulary.load(),
        name="random",
        sha256="0",
        device=torch.device("cpu"),
        precision="float32",
        threshold=0,
        default_threshold=0,
        temperature=1.5,
        input_size=(64, 96),
    )


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((1024, 2048), (2048, 1024), (1024, 2048)),  # Cityscapes, as it is
        ((720, 1280), (1280, 720), (720, 1280)),  # BDD100K, as it is
        ((3024, 4032), (2048, 1024), (1024, 1365)),  # the example of the specification
        ((4032, 3024), (2048, 1024), (1365, 1024)),  # upright
        ((360, 480), (2048, 1024), (1024, 1365)),  # enlarged
        ((500, 2000), (1280, 720), (320, 1280)),  # the long side binds
    ],
)
def test_picture_is_scaled_to_fit_both_sides(size, limits, expected):
    assert within(size, limits) == expected


def test_published_scores_are_those_of_windows_put_together_by_hand(segmenter: Segmenter):
    picture = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    way = Published((240, 150), WindowInput(crop=128, stride=85))  # 50 x 80 -> 150 x 240
    answer = way.probabilities(segmenter)([picture], (25, 40))

    scaled = cv2.resize(picture, (240, 150), interpolation=cv2.INTER_LINEAR)
    pixels = torch.from_numpy(scaled).permute(2, 0, 1)[None].float()
    total, visits = torch.zeros(1, 19, 150, 240), torch.zeros(1, 1, 150, 240)
    with torch.inference_mode():
        for y in (0, 22):  # 150 - 128
            for x in (0, 85, 112):
                window = pixels[..., y : y + 128, x : x + 128]
                scores = assemble(segmenter.model.predict(window))
                total[..., y : y + 128, x : x + 128] += F.interpolate(
                    scores, (128, 128), mode="bilinear", align_corners=False
                )
                visits[..., y : y + 128, x : x + 128] += 1
        mean = F.interpolate(total / visits, (25, 40), mode="bilinear", align_corners=False)
    assert answer.shape == (1, 19, 25, 40)
    assert torch.equal(answer.argmax(1), torch.softmax(mean, 1).argmax(1))  # as published
    tempered = mean ** (1 / 1.5)
    torch.testing.assert_close(answer, tempered / tempered.sum(1, keepdim=True), atol=1e-5, rtol=1e-4)


def test_single_pass_is_what_the_segmenter_says(segmenter: Segmenter):
    picture = np.random.default_rng(1).integers(0, 256, (30, 50, 3), np.uint8)
    answer = SinglePass((64, 96)).probabilities(segmenter)([picture, picture], (15, 25))
    assert answer.shape == (2, 19, 15, 25)
    np.testing.assert_array_equal(answer[1].numpy(), segmenter.probabilities(picture, (15, 25)))


def test_scaled_picture_smaller_than_a_window_is_refused(segmenter: Segmenter):
    picture = np.zeros((100, 1000, 3), np.uint8)
    run = Published((1280, 720), WindowInput()).probabilities(segmenter)
    with pytest.raises(ConfigurationError, match="scaled to 1280x128 it is smaller than a window of 512"):
        run([picture], (100, 1000))


def test_each_network_goes_the_way_it_was_made_for():
    assert choose(SMALL, BDD) == SinglePass((352, 640))
    assert choose(EVA02_L, BDD) == Published((1280, 720), WindowInput())
    assert choose(SMALL, CITYSCAPES, "published") == Published((2048, 1024), WindowInput())
    assert choose(SMALL, CITYSCAPES, "single", (512, 1024)) == SinglePass((512, 1024))


def test_windows_of_the_published_protocol_are_512_every_341():
    assert choose(EVA02_L, CITYSCAPES).settings() == {
        "protocol": "published", "within": [2048, 1024], "window": 512, "stride": 341,
    }  # fmt: skip


def test_windows_take_no_size_and_window_networks_no_single_pass():
    with pytest.raises(ConfigurationError, match="--size 640x320: belongs to a single pass"):
        choose(SMALL, CITYSCAPES, "published", (320, 640))
    with pytest.raises(ConfigurationError, match="sees windows, never a whole picture"):
        choose(EVA02_L, CITYSCAPES, "single")
