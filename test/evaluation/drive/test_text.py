import numpy as np

from mfuser_ros.evaluation.drive.text import draw_text, text_width


def test_text_lies_within_its_width_and_has_its_colour():
    picture = np.zeros((40, 200, 3), np.uint8)
    draw_text(picture, "road", (10, 5), size=20, colour=(200, 100, 50))
    columns = np.flatnonzero(picture.any(axis=(0, 2)))
    assert columns[0] >= 9
    assert columns[-1] <= 10 + text_width("road", 20)
    assert picture.reshape(-1, 3).max(axis=0).tolist() == [200, 100, 50]


def test_text_beyond_the_edges_is_cut_off():
    picture = np.zeros((10, 30, 3), np.uint8)
    for corner in ((-10, -5), (25, 5), (100, 100), (-500, 0)):
        draw_text(picture, "a long line", corner, size=20, colour=(255, 255, 255))
    assert picture.any()
