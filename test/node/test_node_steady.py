"""Labels that flicker, in the node: held for one frame, never against a danger, switched while running."""

from __future__ import annotations

import cv2
import numpy as np

ROAD, SIDEWALK, VEGETATION, PERSON, UNKNOWN = 0, 1, 8, 11, 255
FRAME_NS = 66_000_000


class Film:
    """Pictures of a scene that stands still, 15 a second; the class of a patch is as the test says."""

    def __init__(self, bench) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (96, 128), np.uint8)
        self._bench = bench
        self._scene = np.zeros((96, 128, 3), np.uint8)  # road everywhere
        self._scene[..., 1] = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.5), None, 0, 180, cv2.NORM_MINMAX)
        self._scene[..., 2] = 200  # the confidence
        self._next_ns = bench.now_ns()

    def shown(self, label: int) -> int:
        """What the node publishes of the patch."""
        picture = self._scene.copy()
        picture[30:60, 40:90, 0] = label
        mask = self._bench.segment(picture, header=self._bench.header(stamp_ns=self._next_ns))
        self._next_ns += FRAME_NS
        pixels = np.array(mask.data, np.uint8).reshape(96, 128)
        assert (pixels[:20] == ROAD).all()
        (patch,) = np.unique(pixels[35:55, 50:80])
        return int(patch)


def shown(film: Film, *labels: int) -> list[int]:
    return [film.shown(label) for label in labels]


def test_filter_holds_a_flickering_label_for_one_frame_and_no_longer(bench):
    film = Film(bench(grid__enabled=False, temporal__filter=True))

    assert shown(film, VEGETATION, SIDEWALK, VEGETATION) == [VEGETATION, VEGETATION, VEGETATION]
    assert shown(film, SIDEWALK, SIDEWALK) == [VEGETATION, SIDEWALK]


def test_filter_never_holds_a_label_against_a_danger(bench):
    film = Film(bench(grid__enabled=False, temporal__filter=True))

    assert shown(film, ROAD, PERSON) == [ROAD, PERSON]
    assert shown(film, ROAD, SIDEWALK) == [PERSON, SIDEWALK]
    assert shown(film, VEGETATION, PERSON) == [VEGETATION, PERSON]
    assert shown(film, ROAD, ROAD) == [PERSON, ROAD]  # ground is free by its own word alone


def test_filter_is_off_until_switched_on_while_running_and_can_be_switched_off(bench):
    bench = bench(grid__enabled=False)
    film = Film(bench)
    assert shown(film, VEGETATION, SIDEWALK) == [VEGETATION, SIDEWALK]

    assert bench.set_parameters(temporal__filter=True)[0].successful
    assert shown(film, VEGETATION, SIDEWALK) == [VEGETATION, VEGETATION]

    assert bench.set_parameters(temporal__filter=False)[0].successful
    assert shown(film, VEGETATION, SIDEWALK) == [VEGETATION, SIDEWALK]

    assert bench.set_parameters(temporal__filter=True)[0].successful
    assert film.shown(ROAD) == ROAD  # nothing of before is held: two frames ago is too old


def test_filter_holds_nothing_over_a_picture_that_failed(bench):
    bench = bench(grid__enabled=False, temporal__filter=True)
    film = Film(bench)
    assert film.shown(VEGETATION) == VEGETATION

    bench.segmenter.error = RuntimeError("broken")
    before = len(bench.masks)
    bench.send(np.zeros((96, 128, 3), np.uint8))
    bench.wait(lambda: len(bench.masks) > before, "no mask")
    assert set(bench.masks[-1].data) == {UNKNOWN}
    bench.segmenter.error = None

    film = Film(bench)
    assert film.shown(SIDEWALK) == SIDEWALK
