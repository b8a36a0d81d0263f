"""`mfuser bench` measures for real and writes what others read."""

import json

import pytest

from mfuser_ros.commands.bench import file_name, headline


@pytest.fixture(scope="module")
def bench(mfuser_process, random_model, tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "results/bench.json"
    process = mfuser_process(
        "bench", "--model", random_model, "--device", "cpu", "--size", "160x96", "--frames", 3, "--batch", 2,
        "--stages", "--json", file,
    )  # fmt: skip
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(file.read_text(encoding="utf-8")), output


def test_json_has_the_promised_form(bench):
    result, _ = bench

    assert result["version"] == 1
    assert result["environment"]["torch"]
    assert [(row["what"], row.get("stage")) for row in result["rows"]] == [
        ("frame", None),
        ("stage", "preprocess"),
        ("stage", "inference"),
        ("stage", "postprocess"),
        ("start", "load to first mask"),
        ("drivable", None),
        ("start", "import mfuser_ros"),
        ("start", "mfuser --help"),
    ]
    for row in result["rows"]:
        assert 0 < row["ms"]["min"] <= row["ms"]["p50"] <= row["ms"]["p95"] <= row["ms"]["p99"]


def test_frame_row_says_what_was_measured(bench):
    frame = bench[0]["rows"][0]

    assert (frame["model"], frame["device"], frame["size"], frame["batch"]) == ("random", "cpu", "160x96", 2)
    assert frame["precision"] == "float32"
    assert frame["frames_per_s"] == pytest.approx(2e3 / frame["ms"]["p50"], rel=1e-3)


def test_stages_add_up_to_the_frame(bench):
    frame, *stages = bench[0]["rows"][:4]

    # the least times of three calls; what lies between the stages is little
    assert sum(row["ms"]["min"] for row in stages) == pytest.approx(frame["ms"]["min"], rel=0.5)


def test_memory_is_that_of_the_measured_process_alone(bench):
    rows = {row["what"]: row for row in bench[0]["rows"]}

    assert rows["drivable"]["peak_rss_mb"] < 0.8 * rows["frame"]["peak_rss_mb"]  # torch is in the second alone
    assert 50 < rows["frame"]["peak_rss_mb"] < 4000


def test_table_is_printed(bench):
    for what in ("random, batch 2", "drivable", "mfuser --help"):
        assert what in bench[1]


def test_headline_is_the_median_of_small_at_720p_only():
    row = {"what": "frame", "model": "small", "size": "1280x720", "batch": 1, "ms": {"p50": 250.0}}
    others = [row | {"model": "other"}, row | {"batch": 8}, row | {"size": "640x480"}, {"what": "start"}]

    assert headline([*others, row]) == {"small_1280x720_ms": 250.0}
    assert headline(others) == {}


def test_headline_of_the_large_network_is_that_of_the_engine():
    window = {"what": "window", "model": "eva02-l", "size": "512x512", "batch": 1, "backend": "graph"}
    rows = [
        window | {"backend": "eager", "ms": {"p50": 90.0}, "windows_per_s": 11.0},
        window | {"ms": {"p50": 12.5}, "windows_per_s": 80.0},
        window | {"batch": 8, "ms": {"p50": 68.0}, "windows_per_s": 117.0},
        window | {"model": "clip-l", "ms": {"p50": 11.0}, "windows_per_s": 90.0},
        {"what": "frame", "model": "eva02-l", "size": "2048x1024", "batch": 1, "ms": {"p50": 160.0}},
    ]

    assert headline(rows) == {"window_b1_ms": 12.5, "windows_per_s_b8": 117.0, "frame_1024x2048_ms": 160.0}


def test_file_in_a_folder_is_named_by_date_and_device():
    rows = [{"device_name": "NVIDIA H100 80GB HBM3"}, {"device_name": "another"}]

    assert file_name({"rows": rows, "environment": {"date": "2026-11-25"}}) == "2026-11-25-nvidia-h100-80gb-hbm3.json"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--size", "1280"), "--size 1280: write WIDTHxHEIGHT"),
        (("--precision", "int8"), "precision 'int8'"),
        (("--device", "cuda:77"), "device 'cuda:77'"),
    ],
)
def test_wrong_option_is_one_line(mfuser, random_model, options, said):
    finished = mfuser("bench", "--model", random_model, *options)

    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert said in finished.stderr
