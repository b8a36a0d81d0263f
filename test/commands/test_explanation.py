"""Sheets of `mfuser segment --explain`: what stands where."""

from __future__ import annotations

import cv2
import numpy as np

from mfuser_ros.commands.explanation import GAP, QUERY_COLUMNS, QUERY_WIDTH, Panel, label_height, sheet


def test_explain_writes_a_sheet_of_features_and_one_of_queries(mfuser, random_model, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (tmp_path / "in/left").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in/left/street.png"), picture)

    finished = mfuser(
        "segment", tmp_path / "in", "--out", tmp_path / "out", "--explain", tmp_path / "why", "--quiet",
        "--model", random_model, "--device", "cpu",
    )  # fmt: skip

    assert finished == (0, "", "")
    assert [file.name for file in (tmp_path / "out/left").iterdir()] == ["street.png"]
    features = cv2.imread(str(tmp_path / "why/left/street_features.png"))
    assert features.shape == (2 * (40 + label_height(60) + GAP) + GAP, 3 * (60 + GAP) + GAP, 3)
    queries = cv2.imread(str(tmp_path / "why/left/street_queries.png"))
    height = round(40 * QUERY_WIDTH / 60)
    rows = 20 // QUERY_COLUMNS  # the mask and 19 classes
    assert queries.shape == (
        rows * (height + label_height(QUERY_WIDTH) + GAP) + GAP,
        QUERY_COLUMNS * (QUERY_WIDTH + GAP) + GAP,
        3,
    )


def test_explanations_inside_the_folder_of_pictures_are_no_pictures_of_the_next_call(mfuser, random_model, tmp_path):
    cv2.imwrite(str(tmp_path / "street.png"), np.full((40, 60, 3), 90, np.uint8))
    call = (
        "segment", tmp_path, "--out", tmp_path / "out", "--explain", tmp_path / "why",
        "--model", random_model, "--device", "cpu",
    )  # fmt: skip
    mfuser(*call)

    assert mfuser(*call).stdout.splitlines()[-1] == f"1 masks in {tmp_path / 'out'}"


def test_panels_stand_in_rows_below_their_labels():
    panels = [
        Panel(f"panel {shade}", np.full((50, 200, 3), shade, np.uint8), (shade, 0, 0)) for shade in (90, 120, 150)
    ]

    page = sheet(panels, 2)

    strip = label_height(200)
    for index, shade in enumerate((90, 120, 150)):
        top, left = GAP + index // 2 * (50 + strip + GAP), GAP + index % 2 * (200 + GAP)
        assert (page[top + strip : top + strip + 50, left : left + 200] == shade).all()
        label = page[top : top + strip, left : left + 200]
        assert (label == (shade, 0, 0)).all(-1).any()  # the swatch
        assert label.min(-1).max() > 200  # the words
    assert (page[-50 - GAP :, GAP + 200 + GAP :] == page[0, 0]).all()  # no fourth panel


def test_label_longer_than_a_narrow_panel_stays_inside():
    narrow = Panel("a label of very many words " * 3, np.zeros((10, 60, 3), np.uint8))

    page = sheet([narrow], 1)

    assert (page[:, -GAP:] == page[0, 0]).all()
    assert page[GAP : GAP + label_height(60), 50:].max() < 256
