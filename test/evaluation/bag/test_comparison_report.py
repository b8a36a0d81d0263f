"""The verb that compares, and its page."""

import json
import sys

import pytest

from mfuser_ros.commands.app import main
from mfuser_ros.commands.bag_evaluation import evaluate_bags
from mfuser_ros.evaluation.bag.settings import BagSettings


def run(monkeypatch, capfd, *arguments):
    monkeypatch.setattr(sys, "argv", ["mfuser", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    output, errors = capfd.readouterr()
    return ended.value.code or 0, output, errors


@pytest.fixture(scope="module")
def two(tmp_path_factory, model, drive):
    """Two results on one bag: the second model sees it half as large."""
    folder = tmp_path_factory.mktemp("two")
    bag = drive(folder / "bag", frames=4)
    for name, size in (("a", None), ("b", (64, 96))):
        settings = BagSettings(model=str(model), device="cpu", size=size)
        evaluate_bags([str(bag)], settings, limits=[], out=folder / name, quiet=True)
    return folder


def test_verb_prints_differences_and_writes_json_and_page(two, monkeypatch, capfd, tmp_path, browse):
    code, output, _ = run(monkeypatch, capfd, "evaluate", "--compare", two / "a", two / "b", "--out", tmp_path / "out")
    assert code == 0
    assert "B minus A on 4 common frames" in output
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    summaries = [json.loads((two / name / "summary.json").read_text()) for name in ("a", "b")]
    miou = next(entry for entry in comparison["metrics"] if entry["name"] == "miou")
    assert (miou["a"], miou["b"]) == pytest.approx([summary["miou"] for summary in summaries], rel=1e-12)
    text = (tmp_path / "out" / "report.html").read_text()
    assert text.count("<figure") == 4  # all frames, each with picture, label, A and B
    assert "are too few to tell chance from change" in text
    page = browse(tmp_path / "out" / "report.html")
    chart = page.dom.split('id="chart-classes"')[1]
    assert chart.index("main-svg") < chart.index("</svg>")


def test_limit_on_a_difference_gates_by_the_exit_code(two, monkeypatch, capfd):
    arguments = ("evaluate", "--compare", two / "a", two / "a", "--quiet", "--limit")
    assert run(monkeypatch, capfd, *arguments, "miou.difference>=-0.001")[0] == 0
    code, _, errors = run(monkeypatch, capfd, *arguments, "miou.difference>0")
    assert code == 1
    assert "limit miou.difference>0 is broken: miou.difference is 0" in errors


def test_comparing_and_evaluating_at_once_is_refused(two, monkeypatch, capfd):
    code, _, errors = run(monkeypatch, capfd, "evaluate", two / "bag", "--compare", two / "a", two / "b")
    assert (code, errors.count("\n")) == (2, 1)
    code, _, errors = run(monkeypatch, capfd, "evaluate")
    assert code == 2
    assert "nothing to evaluate" in errors
