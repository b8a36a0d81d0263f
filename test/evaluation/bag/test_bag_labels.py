"""Where labels come from and what their ids mean."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mfuser_ros import vocabulary
from mfuser_ros.bags import BagWriter
from mfuser_ros.bags.recording import Recording
from mfuser_ros.errors import ConfigurationError, InputError
from mfuser_ros.evaluation.bag.labels import FolderLabels, TopicLabels
from mfuser_ros.evaluation.bag.scheme import group, load_scheme, own_scheme, parse_scheme

MS = 1_000_000
START_NS = 1_700_000_000 * 10**9
VOCABULARY = vocabulary.load()


def png(path, value):
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.full((4, 6), value, np.uint8))


def seen(source, frames):
    """First id of the label of each (index, stamp), None without one."""
    labels = [source.at(*frame) for frame in frames]
    return [None if label is None else int(label.ids[0, 0]) for label in labels]


def topic_labels(tmp_path, stamps_ns, tolerance_ns=5 * MS):
    with BagWriter(tmp_path / "bag") as bag:
        for number, stamp_ns in enumerate(stamps_ns):
            bag.mask("/a/label", np.full((4, 6), number, np.uint8), stamp_ns=stamp_ns, frame_id="eye")
    return TopicLabels(Recording(tmp_path / "bag"), "/a/label", tolerance_ns)


def test_label_of_a_frame_is_the_nearest_in_time_within_the_tolerance(tmp_path):
    source = topic_labels(tmp_path, [0, 98 * MS, 103 * MS, 210 * MS])
    assert seen(source, [(0, 0), (1, 100 * MS), (2, 200 * MS), (3, 212 * MS)]) == [0, 1, None, 3]


def test_labels_may_be_fewer_than_frames_and_end_early(tmp_path):
    source = topic_labels(tmp_path, [100 * MS])
    assert seen(source, [(0, 0), (1, 100 * MS), (2, 200 * MS)]) == [None, 0, None]


def test_frames_out_of_order_still_find_their_labels(tmp_path):
    source = topic_labels(tmp_path, [index * 100 * MS for index in range(4)])
    assert seen(source, [(0, 0), (1, 200 * MS), (2, 100 * MS), (3, 300 * MS)]) == [0, 2, 1, 3]


def test_folder_by_index(tmp_path):
    png(tmp_path / "l" / "frame_0000.png", 3)
    png(tmp_path / "l" / "frame_0002.png", 5)
    assert seen(FolderLabels(tmp_path / "l", MS), [(0, 9), (1, 9), (2, 9)]) == [3, None, 5]


@pytest.mark.parametrize("name", ["{}", "label_{}", "{:.9f}", "cam-{:.9f}"])
def test_folder_by_stamp(tmp_path, name):
    for number, offset in enumerate((0, 100 * MS)):
        stamp = START_NS + offset
        text = (
            name.format(stamp) if ".9f" not in name else name.replace("{:.9f}", f"{stamp // 10**9}.{stamp % 10**9:09}")
        )
        png(tmp_path / "l" / f"{text}.png", number)
    source = FolderLabels(tmp_path / "l", 5 * MS)
    assert seen(source, [(7, START_NS), (8, START_NS + 101 * MS), (9, START_NS + 110 * MS)]) == [0, 1, None]


def test_palette_png_gives_indices_and_not_colours(tmp_path):
    picture = Image.fromarray(np.full((4, 6), 7, np.uint8), mode="P")
    picture.putpalette([9, 9, 9] * 256)
    (tmp_path / "l").mkdir()
    picture.save(tmp_path / "l" / "0.png")
    assert seen(FolderLabels(tmp_path / "l", MS), [(0, 0)]) == [7]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "no PNG labels in this folder"),
        (["left.png"], "its name ends with no number"),
        (["1.png", "1700000000000000000.png"], "some names end with indices, some with stamps"),
        (["a_1.png", "b_01.png"], "the same number as a_1.png"),
    ],
)
def test_folder_that_cannot_be_matched_is_one_line(tmp_path, names, said):
    (tmp_path / "l").mkdir()
    for name in names:
        png(tmp_path / "l" / name, 0)
    with pytest.raises(InputError, match=said):
        FolderLabels(tmp_path / "l", MS)


def test_colour_picture_is_no_label(tmp_path):
    (tmp_path / "l").mkdir()
    cv2.imwrite(str(tmp_path / "l" / "0.png"), np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(InputError, match=r"0.png: is a colour map"):
        FolderLabels(tmp_path / "l", MS).at(0, 0)


@pytest.mark.parametrize(("encoding", "dtype"), [("8UC1", "<u1"), ("16UC1", "<u2"), ("mono16", "<u2")])
def test_label_pictures_of_other_encodings_are_read(encoding, dtype):
    from types import SimpleNamespace

    from mfuser_ros.evaluation.bag.labels import _ids_of_message

    ids = np.arange(24, dtype=dtype).reshape(4, 6)
    padded = np.pad(ids, ((0, 0), (0, 1)))  # a row may be longer than its pixels
    message = SimpleNamespace(
        encoding=encoding, height=4, width=6, step=padded.strides[0], is_bigendian=0,
        data=np.frombuffer(padded.tobytes(), np.uint8),
    )  # fmt: skip
    np.testing.assert_array_equal(_ids_of_message(message, "x"), np.arange(24).reshape(4, 6))
    message.encoding = "rgb8"
    with pytest.raises(InputError, match="x: encoding 'rgb8' holds no ids"):
        _ids_of_message(message, "x")


def test_scheme_of_a_set_groups_the_classes_in_the_order_of_its_ids():
    grouping = group(load_scheme("camvid"), VOCABULARY)
    assert grouping.names[:4] == ("sky", "building", "pole", "road")
    np.testing.assert_array_equal(grouping.groups_of(np.array([[3, 255]], np.uint8), "x"), [[3, 255]])
    assert grouping.fine[[3, 8, 255]].tolist() == [0, 13, 255]
    assert grouping.road(VOCABULARY) == 3
    assert grouping.with_role(VOCABULARY, "drivable") == (3,)


def test_any_numbering_is_mapped_by_a_yaml(tmp_path):
    (tmp_path / "ours.yaml").write_text(
        "name: ours\n"
        "labels:\n"
        "  - {id: 40, name: lane, members: [0]}\n"
        "  - {id: 7, name: marking, members: [0]}\n"  # the same class: one group
        "  - {id: 9, name: thing, members: [11, 13]}\n"
        "ignore: [0]\n"
    )
    grouping = group(load_scheme(tmp_path / "ours.yaml"), VOCABULARY)
    assert grouping.names == ("lane", "thing")
    ids = np.array([[40, 7, 9, 0, 255]], np.uint8)
    assert grouping.groups_of(ids, "x").tolist() == [[0, 0, 1, 255, 255]]
    assert grouping.membership.shape == (3, 19)  # the last row: classes that no id stands for
    assert grouping.membership[2].sum() == 16


def test_official_ids_are_mapped_by_the_name_of_their_table(tmp_path):
    (tmp_path / "s.yaml").write_text("name: label ids\nlabels: fine\nids: cityscapes\n")
    grouping = group(load_scheme(tmp_path / "s.yaml"), VOCABULARY)
    assert grouping.groups_of(np.array([[7, 26, 3]], np.uint8), "x").tolist() == [[0, 13, 255]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"name": "x", "labels": []}, "labels"),
        ({"name": "x", "labels": [{"id": 1, "name": "a", "members": [0]}] * 2}, "id 1 stands twice"),
        (
            {
                "name": "x",
                "labels": [{"id": 1, "name": "a", "members": [0]}, {"id": 2, "name": "b", "members": [0, 1]}],
            },
            "class 0 belongs to two groups",
        ),
        ({"name": "x", "labels": "fine", "ids": {3: 77}}, "ids: 3 becomes 77, which is no label"),
        ({"name": "x", "labels": "nothing"}, "labels are a list, fine"),
        ({"name": "x", "labels": "fine", "colour": "red"}, "Extra inputs"),
        (["x"], "file"),
    ],
)
def test_wrong_scheme_is_one_line_with_source_and_rule(content, said):
    with pytest.raises(ConfigurationError, match=f"here: .*{said}") as raised:
        parse_scheme(content, "here")
    assert "\n" not in str(raised.value)


def test_member_outside_the_vocabulary_is_refused():
    scheme = parse_scheme({"name": "x", "labels": [{"id": 1, "name": "a", "members": [19]}]}, "x")
    with pytest.raises(ConfigurationError, match="label a has member 19, the vocabulary ends at 18"):
        group(scheme, VOCABULARY)


def test_own_ids_are_the_vocabularys():
    grouping = group(own_scheme(VOCABULARY), VOCABULARY)
    assert grouping.names == VOCABULARY.names
    np.testing.assert_array_equal(grouping.membership, np.eye(19))


def test_folder_of_labels_is_scored_like_the_topic(tmp_path, drive, scene, settings, evaluated):
    for index in range(6):
        (tmp_path / "labels").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "labels" / f"{index}.png"), scene(index)[1])
    by_topic = evaluated([drive(tmp_path / "1" / "bag")], tmp_path / "a", settings)
    folder = settings.model_copy(update={"labels": {"": str(tmp_path / "labels")}})
    by_folder = evaluated([drive(tmp_path / "2" / "bag", labels=False)], tmp_path / "b", folder)
    assert by_topic["confusion"] == by_folder["confusion"]
    none = evaluated([tmp_path / "1" / "bag"], tmp_path / "c", settings.model_copy(update={"labels": {"": "none"}}))
    assert none["labelled_frames"] == 0


def test_labels_that_fit_no_frame_are_told(tmp_path, drive, settings, evaluated):
    png(tmp_path / "labels" / "77.png", 0)
    settings = settings.model_copy(update={"labels": {"": str(tmp_path / "labels")}})
    summary = evaluated([drive(tmp_path / "bag")], tmp_path / "out", settings)
    assert summary["labelled_frames"] == 0
    assert "no frame has a label" in summary["bags"][0]["notes"][0]
