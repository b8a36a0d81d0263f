"""Flicker is held for one frame, danger is shown at once. Weights are random: what counts is made by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mfuser_ros
from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import ModelCard, save_model
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.inference import Segmentation, Segmenter, Steady
from mfuser_ros.inference.steady import care_of
from mfuser_ros.network.config import SMALL
from mfuser_ros.network.model import MFuser
from mfuser_ros.vocabulary import UNKNOWN

SIZE = (96, 128)
ROAD, SIDEWALK, BUILDING, VEGETATION, TERRAIN, SKY, PERSON, CAR, TRUCK = 0, 1, 2, 8, 9, 10, 11, 13, 14
SURE, UNSURE = 230, 100  # of 255; the threshold is 0.538, which is 137
ROLES = {entry.id: entry.role for entry in vocabulary.load().classes}


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Segmenter:
    torch.manual_seed(1)
    path: Path = tmp_path_factory.mktemp("models") / "random.safetensors"
    card = ModelCard(
        name="random", architecture=SMALL, vocabulary=vocabulary.load().names, threshold=0.538, temperature=0.1,
        licence="none", provenance="random weights, seed 1",
    )  # fmt: skip
    save_model(MFuser(SMALL), card, path)
    return mfuser_ros.load(path, device="cpu", input_size=(96, 128))


@pytest.fixture
def steady(segmenter) -> Steady:
    return Steady(segmenter)


def _texture(seed: int = 0, size: tuple[int, int] = (140, 200)) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.5), None, 0, 255, cv2.NORM_MINMAX))


WORLD = _texture()


def _result(labels: np.ndarray | int, confidence: np.ndarray | int = SURE, column: int = 0) -> Segmentation:
    """The single result of a picture that shows the world from `column` on."""
    labels = np.broadcast_to(np.uint8(labels), SIZE).copy()
    confidence = np.broadcast_to(np.uint8(confidence), SIZE).copy()
    mask = np.where(confidence < 0.538 * 255, UNKNOWN, labels).astype(np.uint8)
    picture = np.ascontiguousarray(WORLD[: SIZE[0], column : column + SIZE[1]])
    return Segmentation(picture, mask, confidence, labels, vocabulary.load())


def _shown(steady: Steady, *labels: int | tuple[int, int]) -> list[int]:
    """What is shown, frame by frame, of a still scene that is one label (and confidence) all over."""
    shown = []
    for index, entry in enumerate(labels):
        label, confidence = entry if isinstance(entry, tuple) else (entry, SURE)
        mask = steady.update(_result(label, confidence), time_s=0.1 * index).mask
        assert (mask == mask[0, 0]).all()
        shown.append(int(mask[0, 0]))
    return shown


def test_first_frame_is_shown_as_it_is(steady):
    result = _result(CAR, UNSURE)
    first = steady.update(result, time_s=0)
    for given_array, array in ((result.mask, first.mask), (result.labels, first.labels)):
        np.testing.assert_array_equal(given_array, array)
    np.testing.assert_array_equal(result.confidence, first.confidence)


def test_label_that_flickers_for_one_frame_is_not_shown(steady):
    assert _shown(steady, BUILDING, VEGETATION, BUILDING, VEGETATION, BUILDING) == [BUILDING] * 5


def test_change_that_lasts_is_shown_with_its_second_frame(steady):
    assert _shown(steady, BUILDING, VEGETATION, VEGETATION, VEGETATION) == [BUILDING] + [BUILDING] + [VEGETATION] * 2


def test_every_frame_another_label_never_shows_one_from_two_frames_ago(steady):
    assert _shown(steady, CAR, TRUCK, 15, 16) == [CAR, CAR, 15, 15]


@pytest.mark.parametrize("thing", [CAR, PERSON, BUILDING])
@pytest.mark.parametrize("before", [ROAD, SIDEWALK, TERRAIN, SKY])
def test_thing_that_appears_is_shown_by_the_frame_that_sees_it(steady, thing, before):
    assert _shown(steady, before, before, before, thing) == [before] * 3 + [thing]


def test_person_before_a_wall_is_shown_by_the_frame_that_sees_it(steady):
    assert _shown(steady, BUILDING, BUILDING, PERSON) == [BUILDING, BUILDING, PERSON]


@pytest.mark.parametrize("now", [(CAR, UNSURE), (SIDEWALK, SURE), (TERRAIN, UNSURE), (ROAD, UNSURE)])
def test_road_is_never_shown_by_an_earlier_frames_word(steady, now):
    label, confidence = now
    assert _shown(steady, ROAD, ROAD, now)[-1] == (label if confidence == SURE else UNKNOWN)


def test_road_that_follows_a_car_is_shown_one_frame_late(steady):
    assert _shown(steady, CAR, ROAD, ROAD) == [CAR, CAR, ROAD]


def test_label_a_little_less_sure_stays_and_one_that_was_not_shown_does_not_appear(segmenter):
    a_little_less = round((0.538 - 0.05) * 255)
    assert _shown(Steady(segmenter), ROAD, (ROAD, a_little_less), (ROAD, a_little_less)) == [ROAD] * 3
    assert _shown(Steady(segmenter), (ROAD, a_little_less), (ROAD, a_little_less)) == [UNKNOWN] * 2
    assert _shown(Steady(segmenter, hysteresis=0), ROAD, (ROAD, a_little_less)) == [ROAD, UNKNOWN]


def test_threshold_of_the_segmenter_counts_when_a_picture_is_given(segmenter):
    steady = Steady(segmenter, hysteresis=0.1)
    default = segmenter.threshold
    try:
        segmenter.threshold = 0.3
        assert _shown(steady, ROAD, (ROAD, round(0.25 * 255))) == [ROAD, ROAD]
    finally:
        segmenter.threshold = default


def test_sure_thing_that_becomes_unsure_stays_for_one_frame(steady):
    assert _shown(steady, CAR, (CAR, UNSURE), (CAR, UNSURE)) == [CAR, CAR, UNKNOWN]


def test_held_label_keeps_the_confidence_of_its_frame(steady):
    steady.update(_result(BUILDING, 200), time_s=0)
    result = steady.update(_result(VEGETATION, 150), time_s=0.1)
    assert (result.mask == BUILDING).all()
    assert (result.labels == BUILDING).all()
    assert (result.confidence == 200).all()


def test_labels_are_never_unknown(steady):
    steady.update(_result(TERRAIN, UNSURE), time_s=0)
    result = steady.update(_result(SIDEWALK), time_s=0.1)
    assert (result.mask == UNKNOWN).all()  # held: unknown is the more careful word
    assert (result.labels == SIDEWALK).all()


def test_label_is_held_where_its_point_has_moved_to(steady):
    """The scene moves 4 pixels to the left a frame; a wall in it loses its label for one frame."""
    world = np.full(WORLD.shape[:2], VEGETATION, np.uint8)
    world[30:60, 50:90] = BUILDING
    views = [np.ascontiguousarray(world[: SIZE[0], column : column + SIZE[1]]) for column in (0, 4, 8)]
    steady.update(_result(views[0], column=0), time_s=0)
    held = steady.update(_result(VEGETATION, column=4), time_s=0.1)
    assert (held.mask == views[1])[:, 8:-8].mean() > 0.995
    assert (held.mask[32:58, 50:82] == BUILDING).all()  # right of the old place's left edge less 4


def test_obstacle_that_drives_into_view_is_marked_in_every_frame_with_its_whole_size(steady):
    """A car comes in from the right on a road that has been road for long."""
    car = _texture(5, (30, 40))
    for index in range(6):
        result = _result(ROAD)
        picture, labels = result.picture.copy(), result.labels.copy()
        left = SIZE[1] - 8 * max(0, index - 1)
        width = min(40, SIZE[1] - left)
        picture[40:70, left : left + width] = car[:, :width]
        labels[40:70, left : left + width] = CAR
        shown = steady.update(
            Segmentation(picture, labels, result.confidence, labels, result.vocabulary), time_s=index / 10
        )
        assert (shown.mask[labels == CAR] == CAR).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_laws_hold_for_any_results(segmenter, seed):
    """Flicker of every kind at once, on a still scene: each pixel is a history of its own."""
    generator = np.random.default_rng(seed)
    choices = np.array([ROAD, SIDEWALK, BUILDING, VEGETATION, TERRAIN, SKY, PERSON, CAR])
    steady = Steady(segmenter)
    singles = [
        _result(generator.choice(choices, SIZE), generator.integers(90, 256, SIZE)) for _ in range(5)
    ]  # fmt: skip
    shown = [steady.update(single, time_s=0.1 * index) for index, single in enumerate(singles)]
    role_of = np.array([ROLES.get(value, "unknown") for value in range(256)])
    least = (segmenter.threshold - 0.08) * 255
    for index in range(1, 5):
        now, before, mask = singles[index], singles[index - 1], shown[index].mask
        kept = (mask == now.labels) & (now.confidence >= least)
        own = (mask == now.mask) | kept
        earlier = (mask == before.mask) | ((mask == before.labels) & (before.confidence >= least))
        assert (own | earlier).all()  # no label is older than one frame
        drivable = role_of[mask] == "drivable"
        assert (role_of[now.labels][drivable] == "drivable").all()
        assert (now.confidence[drivable] >= least).all()
        moves = role_of[now.mask] == "dynamic"
        assert (role_of[mask][moves] == "dynamic").all()
        stands = role_of[now.mask] == "static"
        assert np.isin(role_of[mask][stands], ["static", "dynamic"]).all()


@pytest.mark.parametrize("gap_s", [0.51, 0.0, -0.1])
def test_pictures_that_do_not_follow_each_other_share_nothing(steady, gap_s):
    steady.update(_result(BUILDING), time_s=10)
    assert (steady.update(_result(VEGETATION), time_s=10 + gap_s).mask == VEGETATION).all()


def test_cut_ends_what_was_held(steady):
    steady.update(_result(BUILDING), time_s=0)
    after = _result(VEGETATION)
    other = _texture(9)[: SIZE[0], : SIZE[1]].copy()
    cut = Segmentation(other, after.mask, after.confidence, after.labels, after.vocabulary)
    assert (steady.update(cut, time_s=0.1).mask == VEGETATION).all()


def test_change_of_size_ends_what_was_held(steady):
    steady.update(_result(BUILDING), time_s=0)
    after = _result(VEGETATION)
    smaller = Segmentation(
        *(array[:64] for array in (after.picture, after.mask, after.confidence, after.labels)), after.vocabulary
    )
    assert (steady.update(smaller, time_s=0.1).mask == VEGETATION).all()


def test_cameras_do_not_see_each_others_labels(steady):
    steady.update(_result(BUILDING), time_s=0, camera="front")
    assert (steady.update(_result(VEGETATION), time_s=0.1, camera="rear").mask == VEGETATION).all()
    assert (steady.update(_result(VEGETATION), time_s=0.1, camera="front").mask == BUILDING).all()


@pytest.mark.parametrize("camera", [None, "front"])
def test_reset_forgets(steady, camera):
    steady.update(_result(BUILDING), time_s=0, camera="front")
    steady.reset(camera)
    assert (steady.update(_result(VEGETATION), time_s=0.1, camera="front").mask == VEGETATION).all()


def test_reset_of_one_camera_leaves_the_others(steady):
    steady.update(_result(BUILDING), time_s=0, camera="front")
    steady.reset("rear")
    assert (steady.update(_result(VEGETATION), time_s=0.1, camera="front").mask == BUILDING).all()


def test_called_with_pictures_it_segments_them(segmenter, steady):
    picture = WORLD[: SIZE[0], : SIZE[1]].copy()
    single = segmenter(picture)
    for time_s in (0.0, 0.1):  # the same picture again gives the same labels, so nothing is to be held
        np.testing.assert_array_equal(steady(picture, time_s=time_s).mask, single.mask)


def test_ids_of_another_vocabulary_have_the_care_of_their_roles(tmp_path):
    """With car and road the other way round in the list, car is still what may not be hidden."""
    path = tmp_path / "two.yaml"
    path.write_text(
        "classes:\n"
        "  - {id: 0, name: thing, queries: [car, truck, bus, person], colour: [1, 1, 1], role: dynamic}\n"
        "  - {id: 1, name: way, queries: [road], colour: [2, 2, 2], role: drivable}\n"
    )
    care = care_of(vocabulary.load(path))
    assert care[0] > care[UNKNOWN] > care[1]


@pytest.mark.parametrize("wrong", [{"hysteresis": -0.1}, {"hysteresis": 1.5}, {"max_gap_s": 0}])
def test_values_that_cannot_work_are_refused(segmenter, wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Steady(segmenter, **wrong)
