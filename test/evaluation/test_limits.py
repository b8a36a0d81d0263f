import pytest

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.evaluation.limits import Limit, judge, parse_limit

SUMMARY = {
    "version": 1,
    "miou": 0.61,
    "road": {"precision": 0.9, "recall": None},
    "drivable": None,
    "classes": [{"id": 0, "name": "road", "iou": 0.8}, {"id": 1, "name": "traffic light", "iou": None}],
    "latency_ms": {"p95": 240.0},
    "incomplete": False,
    "settings": {"threshold": 0.0},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("miou>=0.61", True),
        ("miou > 0.61", False),
        ("latency_ms.p95<=240", True),
        ("latency_ms.p95<240", False),
        ("classes.road.iou>0.79", True),
        ("classes.traffic light.iou>=0", False),  # not measured
        ("drivable.iou_m>=0", False),
        ("road.recall<=1", False),
    ],
)
def test_limit_is_compared_with_the_number_of_that_path(text, holds):
    (entry,) = judge(SUMMARY, [parse_limit(text)])
    assert entry["holds"] is holds


def test_entry_says_limit_and_value():
    assert judge(SUMMARY, [Limit("miou", ">=", 0.7)]) == [
        {"limit": "miou>=0.7", "metric": "miou", "value": 0.61, "holds": False}
    ]


@pytest.mark.parametrize("text", ["miou", "miou=0.5", "miou>=a", ">=0.5", "miou>=0.5>=0.4", "miou>="])
def test_other_forms_are_one_line(text):
    with pytest.raises(ConfigurationError, match=r"limit .*: .*write METRIC>=VALUE") as raised:
        parse_limit(text)
    assert "\n" not in str(raised.value)


def test_unknown_metric_is_answered_with_those_there_are():
    with pytest.raises(
        ConfigurationError, match=r"limit on mIoU: no such metric: choose from miou, road.precision, road"
    ):
        judge(SUMMARY, [parse_limit("mIoU>=0.5")])
    with pytest.raises(ConfigurationError, match="is no number"):
        judge(SUMMARY, [parse_limit("incomplete>=0")])
