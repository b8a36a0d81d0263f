import numpy as np

from mfuser_ros import vocabulary
from mfuser_ros.evaluation.drive.birdseye import FREE, BirdsEye
from mfuser_ros.evaluation.drive.panels import GRID, HEADER, MARGIN, PICTURE_WIDTH, SIZE, Composer, Shot
from mfuser_ros.evaluation.drive.record import FrameRecord, class_shares

CLASSES = vocabulary.load()
TOP = HEADER + 28


def shot(*, occupancy, mask_id=0, number=1):
    picture = np.full((90, 160, 3), (200, 100, 50), np.uint8)
    mask = np.full((90, 160), mask_id, np.uint8)
    record = FrameRecord(0.0, 123.0, class_shares(mask, 19), 0.9, 12.0, 20.0)
    return Shot(picture, mask, occupancy, np.zeros((0, 4), np.float32), record, number)


def composer(birds_eye):
    return Composer(CLASSES, title="A drive", frames=3, picture_size=(160, 90), birds_eye=birds_eye, notes=("A note",))


def with_grid():
    geometry = {"resolution": 0.2, "x_min": -5.0, "y_min": -15.0}
    return composer(BirdsEye((150, 225), size=GRID, vocabulary=CLASSES, **geometry))


def test_picture_classes_and_grid_stand_side_by_side():
    occupancy = np.zeros((150, 225), np.int8)
    canvas = with_grid().draw(shot(occupancy=occupancy))
    assert canvas.shape == (SIZE[1], SIZE[0], 3)
    row = TOP + 100
    assert tuple(canvas[row, MARGIN + 50]) == (200, 100, 50)
    blended = 0.45 * np.array((200, 100, 50)) + 0.55 * np.array((128, 64, 128))  # road over the picture
    np.testing.assert_allclose(canvas[row, 2 * MARGIN + PICTURE_WIDTH + 50], blended, atol=1)
    assert tuple(canvas[row, 3 * MARGIN + 2 * PICTURE_WIDTH + 50]) == FREE


def test_tall_picture_keeps_its_shape():
    drawn = Composer(CLASSES, title="A drive", frames=1, picture_size=(100, 100), birds_eye=None)
    square = Shot(
        np.full((100, 100, 3), 200, np.uint8),
        np.full((100, 100), 255, np.uint8),
        None,
        np.zeros((0, 4), np.float32),
        FrameRecord(0.0, 1.0, class_shares(np.full((100, 100), 255, np.uint8), 19), None, None, None),
        1,
    )
    panel = drawn.draw(square)[TOP : TOP + 470, MARGIN : MARGIN + PICTURE_WIDTH]
    columns = np.flatnonzero((panel == 200).all(axis=(0, 2)))
    assert len(columns) == 470
    assert columns[0] == (PICTURE_WIDTH - 470) // 2


def test_unknown_pixels_show_the_picture():
    canvas = with_grid().draw(shot(occupancy=np.zeros((150, 225), np.int8), mask_id=255))
    assert tuple(canvas[TOP + 100, 2 * MARGIN + PICTURE_WIDTH + 50]) == (200, 100, 50)


def test_shots_differ_by_their_number_only_in_the_header():
    drawn = with_grid()
    occupancy = np.zeros((150, 225), np.int8)
    first, second = drawn.draw(shot(occupancy=occupancy)), drawn.draw(shot(occupancy=occupancy, number=2))
    assert (first[:HEADER] != second[:HEADER]).any()
    np.testing.assert_array_equal(first[HEADER:], second[HEADER:])


def test_drive_without_a_grid_says_so_instead_of_drawing_one():
    canvas = composer(None).draw(shot(occupancy=None))
    panel = canvas[TOP : TOP + GRID[1], 3 * MARGIN + 2 * PICTURE_WIDTH :]
    assert not (panel == FREE).all(axis=-1).any()
    assert len(np.unique(panel.reshape(-1, 3), axis=0)) > 2  # there is text on the background
