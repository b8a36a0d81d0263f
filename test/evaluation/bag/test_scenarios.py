"""Scenarios as a user writes them: a folder of bags as a test suite with a JUnit file."""

import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from mfuser_ros.commands.bag_evaluation import Crew
from mfuser_ros.commands.scenarios import run_suite
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.evaluation.bag.degrade import degrade
from mfuser_ros.evaluation.scenario import cases, load_suite

PICTURES = Path(__file__).parents[3] / "test" / "data" / "pictures"


def suite(folder, *scenarios):
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump({"name": "nightly", "scenarios": list(scenarios)}))
    return path


def run(file, settings, out):
    code = run_suite(file, settings, out=out, report=None, crew=Crew(), quiet=True)
    return code, ET.parse(out / "junit.xml").getroot()


@pytest.fixture
def archive(tmp_path, drive):
    """Two drives with labels; another is cut off."""
    for number in (1, 2):
        drive(tmp_path / f"day_{number}", frames=2 + number)
    return tmp_path


def test_each_bag_that_fits_is_a_test_with_its_figures(archive, settings):
    file = suite(archive, {"name": "sane", "bag": "day_*", "limits": ["miou>=0", "predicted.unknown_share<=1"]})
    code, root = run(file, settings, archive / "out")
    assert code == 0
    assert root.attrib | {"time": ""} == {"tests": "2", "failures": "0", "errors": "0", "time": ""}
    found = root.findall("./testsuite[@name='nightly']/testcase")
    assert [(case.get("classname"), case.get("name")) for case in found] == [
        ("nightly.day_1", "sane"),
        ("nightly.day_2", "sane"),
    ]
    assert found[0].find("system-out").text.startswith("miou>=0: miou is 0.")
    assert float(found[0].get("time")) > 0


def test_broken_limit_is_a_failure_that_says_the_value(archive, settings):
    file = suite(archive, {"name": "too good", "bag": "day_1", "limits": ["miou>=0.99", "predicted.confidence>=0"]})
    code, root = run(file, settings, archive / "out")
    assert code == 1
    assert root.get("failures") == "1"
    assert root.find(".//failure").get("message").startswith("miou>=0.99: miou is 0.")


def test_window_judges_its_frames_alone(archive, settings):
    whole = {"name": "whole", "bag": "day_2", "limits": ["frames>=4"]}
    part = {"name": "part", "bag": "day_2", "window": [0.1, 0.3], "limits": ["frames>=2", "frames<=2"]}
    assert run(suite(archive, whole, part), settings, archive / "out")[0] == 0
    late = {"name": "late", "bag": "day_2", "window": [5, 6], "limits": ["frames>=0"]}
    code, root = run(suite(archive, late), settings, archive / "out")
    assert code == 2
    assert "no frame of any camera in the window" in root.find(".//error").get("message")


def test_twin_is_judged_by_its_change(archive, settings, drive):
    same = {"name": "same", "bag": "day_1", "twins": [{"bag": "day_1", "change": ["miou>=0", "miou<=0"]}]}
    other = {"name": "other", "bag": "day_1", "twins": [{"bag": "day_2", "change": ["frames>=1", "frames<=1"]}]}
    dark = {"name": "weather", "bag": "day_1", "twins": [{"degrade": "dark", "change": ["predicted.confidence>5"]}]}
    code, root = run(suite(archive, same, other, dark), settings, archive / "out")
    assert code == 1
    failing = root.find(".//failure").get("message")
    assert failing.startswith("change to dark: predicted.confidence>5: predicted.confidence is ")
    assert len(root.findall(".//failure")) == 1


def test_damaged_bag_is_an_error_and_not_a_pass(archive, settings):
    file = archive / "day_1" / "day_1.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    code, root = run(suite(archive, {"name": "a", "bag": "day_1", "limits": ["frames>=1"]}), settings, archive / "out")
    assert code == 2
    assert "day_1 is damaged: day_1.mcap: ends or breaks off" in root.find(".//error").get("message")


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ({"name": "a", "bag": "night", "limits": ["miou>=0"]}, "a: no bag night in"),
        ({"name": "a", "bag": "day_1", "twins": [{"bag": "gone", "change": ["miou>=0"]}]}, "a: no twin gone in"),
        ({"name": "a", "bag": "day_1"}, "a: states neither limits nor twins"),
        ({"name": "a", "bag": "day_1", "limits": ["miou"]}, "limit 'miou': write METRIC>=VALUE"),
        ({"name": "a", "bag": "day_1", "limits": ["miou>0"], "window": [3, 2]}, "must be two rising times"),
        ({"name": "a", "bag": "day_1", "twins": [{"change": ["miou>0"]}]}, "a twin is another bag, or the same one"),
        ({"name": "a", "bag": "day_1", "limits": ["miou>0"], "weather": 1}, "Extra inputs"),
    ],
)
def test_wrong_suite_is_one_line(archive, scenario, said):
    with pytest.raises(ConfigurationError, match=said) as raised:
        cases(load_suite(suite(archive, scenario)), archive)
    assert "\n" not in str(raised.value)


def test_rain_makes_the_shipped_model_less_sure_and_sun_does_not(tmp_path):
    import mfuser_ros
    from mfuser_ros import share

    if not (share.find("models") / "small.safetensors").is_file():
        pytest.skip("the weights of small are not there")
    segmenter = mfuser_ros.load("small", device="cpu", input_size=(160, 288))
    picture = cv2.cvtColor(cv2.imread(str(PICTURES / "highway_300.jpg")), cv2.COLOR_BGR2RGB)
    seen = {
        weather: float(segmenter(picture if weather is None else degrade(picture, weather, 0)).confidence.mean() / 255)
        for weather in (None, "rain", "sun")
    }
    assert seen["rain"] < seen[None] - 0.03
    assert seen["sun"] > seen[None] - 0.03


@pytest.mark.parametrize("weather", ["rain", "fog", "sun", "dark"])
def test_weather_is_the_same_every_time_and_differs_from_frame_to_frame_where_it_moves(weather):
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    first = degrade(picture, weather, 3)
    assert (first.shape, first.dtype) == (picture.shape, np.uint8)
    np.testing.assert_array_equal(first, degrade(picture, weather, 3))
    assert (first != picture).any()
    assert (first != degrade(picture, weather, 4)).any() == (weather in ("rain", "dark"))
