import numpy as np

from mfuser_ros import vocabulary
from mfuser_ros.evaluation.drive.birdseye import BACKGROUND, FREE, OCCUPIED, UNSEEN, BirdsEye

NO_CONTACTS = np.zeros((0, 4), np.float32)


def birds_eye(size=(40, 60)):
    """4 m wide (y -2..2), 6 m long (x -1..5), cells of 1 m: 10 pixels each on a panel of 40 x 60."""
    return BirdsEye((4, 6), resolution=1.0, x_min=-1.0, y_min=-2.0, size=size, vocabulary=vocabulary.load())


def test_forward_is_up_and_left_is_left():
    occupancy = np.full((4, 6), -1, np.int8)
    occupancy[3, 5] = 0  # y 1..2, x 4..5: far left
    occupancy[0, 5] = 100  # y -2..-1: far right
    panel = birds_eye().draw(occupancy, NO_CONTACTS)
    assert panel.shape == (60, 40, 3)
    assert tuple(panel[5, 5]) == FREE
    assert tuple(panel[5, 35]) == OCCUPIED
    assert tuple(panel[15, 5]) == UNSEEN


def test_contact_has_the_colour_of_its_class_at_its_place():
    contact = np.array([[3.0, -1.0, 0.0, 13]], np.float32)
    panel = birds_eye().draw(np.full((4, 6), -1, np.int8), contact)
    assert tuple(panel[20, 30]) == (0, 0, 142)  # x = 3 is 20 px below the top, y = -1 is 30 px from the left


def test_contact_off_the_grid_is_not_drawn():
    occupancy = np.full((4, 6), -1, np.int8)
    far = np.array([[30.0, 0.0, 0.0, 13]], np.float32)
    np.testing.assert_array_equal(birds_eye().draw(occupancy, far), birds_eye().draw(occupancy, NO_CONTACTS))


def test_panel_of_another_shape_keeps_the_scale_equal_and_fills_the_rest():
    panel = birds_eye(size=(100, 60)).draw(np.zeros((4, 6), np.int8), NO_CONTACTS)
    assert tuple(panel[30, 10]) == BACKGROUND
    assert tuple(panel[5, 45]) == FREE
