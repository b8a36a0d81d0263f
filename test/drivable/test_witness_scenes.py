"""The drivable area against scenes of exact geometry, through every lens model."""

import itertools

import numpy as np
import pytest
from judge import Witness, judge
from random_scenes import random_scene
from road_scene import BUILDING, POLE, Box, Post, Scene
from witness_cameras import WITNESSES

from mfuser_ros import vocabulary
from mfuser_ros.drivable import DrivableArea, GridSpec, View

TRAFFIC = (
    Box(12, 2.2, 4.5, 1.8, 1.5, yaw=0.05),
    Box(17, -3, 4.5, 1.8, 1.5, yaw=0.3),
    Post(8, -2, 0.25, 1.75),
    Post(14, 0, 0.25, 1.75),
    Post(10, 5.5, 0.1, 4, POLE),
    Box(20, 12, 30, 6, 8, BUILDING),
)
SCENES = {
    "empty": Scene(half_width=4.0),
    "traffic": Scene(TRAFFIC, half_width=4.0, kerb_height=0.12),
    "bend": Scene(TRAFFIC[1:4], half_width=4.0, bend_radius=40.0, kerb_height=0.12),
    "right_bend": Scene(TRAFFIC[3:4], half_width=3.0, bend_radius=-30.0),
}
VOCABULARY_FILE = __file__.split("test/drivable", maxsplit=1)[0] + "config/vocabulary.yaml"


@pytest.mark.parametrize(
    ("lens", "scene"),
    [*itertools.product(WITNESSES, ("traffic", "bend")), ("pinhole", "empty"), ("equidistant", "right_bend")],
)
def test_perfect_masks_give_the_free_space_that_is_there(lens, scene):
    witness = WITNESSES[lens]
    mask = SCENES[scene].render(witness.rays, witness.pose)
    area = DrivableArea(GridSpec(), vocabulary.load(VOCABULARY_FILE))

    result = area.update([View(mask, np.full_like(mask, 255), witness.camera, witness.pose)])

    verdict = judge(
        result.occupancy,
        area.spec,
        Witness(SCENES[scene], witness.camera, witness.pose, witness.project, witness.rays),
    )
    assert verdict.judged > 1500
    assert verdict.iou >= 0.99
    assert verdict.wrong_free == 0
    if SCENES[scene].things:
        assert verdict.feet_share >= 0.9
        assert verdict.wrong_occupied <= 8  # a bearing that grazes a corner marks up to a pixel's width beyond it
    else:
        assert not (result.occupancy == 100).any()


@pytest.mark.parametrize("seed", [4, 15, 62])  # with flanks of vehicles that cover one column of the picture
def test_random_scene_is_told_as_well(seed):
    scene, camera = random_scene(seed)
    mask = scene.render(camera.rays, camera.pose)
    area = DrivableArea(GridSpec(), vocabulary.load(VOCABULARY_FILE))

    result = area.update([View(mask, np.full_like(mask, 255), camera.camera, camera.pose)])

    verdict = judge(
        result.occupancy, area.spec, Witness(scene, camera.camera, camera.pose, camera.project, camera.rays)
    )
    assert verdict.judged > 1500
    assert verdict.iou >= 0.97
    assert verdict.wrong_free == 0
    assert verdict.feet_share >= 0.9
    assert verdict.wrong_occupied <= 8


def test_ground_along_a_flank_seen_edge_on_was_not_free_without_it(monkeypatch):
    scene, camera = random_scene(62)
    mask = scene.render(camera.rays, camera.pose)
    view = View(mask, np.full_like(mask, 255), camera.camera, camera.pose)
    area = DrivableArea(GridSpec(), vocabulary.load(VOCABULARY_FILE))
    told = area.update([view]).occupancy

    monkeypatch.setattr("mfuser_ros.drivable.contacts._LONGEST_FLANK_M", 0.0)
    without = area.update([view]).occupancy

    marked = (told == 100) & (without != 100)
    assert marked.sum() > 5
    assert (without[marked] == -1).all()
    np.testing.assert_array_equal(told == 0, without == 0)
