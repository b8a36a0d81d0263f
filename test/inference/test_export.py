"""An exported file says in ONNX Runtime what the Segmenter says, and what cannot be exported is refused in one line."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import mfuser_ros
from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import ModelCard, load_model, save_model
from mfuser_ros.commands.app import app
from mfuser_ros.errors import CheckpointError, ConfigurationError, MFuserError
from mfuser_ros.inference import Segmenter
from mfuser_ros.network.config import WindowInput, changed
from mfuser_ros.network.deformable import DeformableAttention
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.mvfuser import MVFuser
from mfuser_ros.vocabulary import Vocabulary

onnx = pytest.importorskip("onnx", reason="needs the [export] extra")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the [export] extra")
pytest.importorskip("onnxscript", reason="needs the [export] extra")

from mfuser_ros.inference import export  # noqa: E402
from mfuser_ros.inference.export import NoParityError, export_onnx  # noqa: E402
from mfuser_ros.inference.exported import ExportedNetwork  # noqa: E402

SIZE = (64, 128)
ROOT = Path(__file__).resolve().parents[2]
FILES = [str(ROOT / "test" / "data" / "pictures" / f"highway_{number}.jpg") for number in (300, 560)]
# all kinds of parts of `small`, few of each: export takes its time with every node
ARCHITECTURE = changed("small", {"fusion": {"stages": [6]}, "head": {"pixel_layers": 1, "query_layers": 1}})


def segmenter_of(seed: int, architecture=ARCHITECTURE, classes: Vocabulary | None = None, members=None) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(
        MFuser(architecture),
        classes or vocabulary.load(),
        name="random",
        sha256="ab" * 32,
        device=torch.device("cpu"),
        precision="float32",
        threshold=0.0,
        default_threshold=0.4,
        temperature=0.2,  # random scores are nearly equal; this spreads them
        input_size=SIZE if architecture is ARCHITECTURE else None,
        members=members,
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    torch.manual_seed(1)
    card = ModelCard(
        name="random",
        architecture=ARCHITECTURE,
        vocabulary=vocabulary.load().names,
        threshold=0.4,
        temperature=0.2,
        licence="CC0-1.0",
        provenance="random weights, seed 1",
    )
    save_model(MFuser(ARCHITECTURE), card, path)
    return path


@pytest.fixture(scope="module")
def segmenter(weights) -> Segmenter:
    return mfuser_ros.load(weights, device="cpu", input_size=SIZE)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [cv2.resize(cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB), SIZE[::-1]) for file in FILES]


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory) -> Path:
    """Written by the command, as a user does."""
    path = tmp_path_factory.mktemp("onnx") / "random.onnx"
    pictures = [argument for file in FILES for argument in ("--picture", file)]
    finished = CliRunner().invoke(
        app, ["export", str(path), "--size", "128x64", "--batch", "2", "--model", str(weights), *pictures]
    )
    assert finished.exit_code == 0, finished.output
    assert "random.onnx: " in finished.stdout
    assert "100.000% of labels equal: parity" in " ".join(finished.stdout.split())
    return path


def run(path: Path, pictures: list[np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"picture": np.stack(pictures)})


def test_file_gives_the_segmenters_probabilities_of_two_pictures_at_once(exported, segmenter, pictures):
    (found,) = run(exported, pictures)

    expected = np.stack([segmenter.probabilities(picture, (16, 32)) for picture in pictures])
    assert found.shape == (2, 19, 16, 32)
    assert np.abs(expected[0] - expected[1]).max() > 0.01  # the pictures do differ
    np.testing.assert_allclose(found, expected, atol=1e-4)  # float32 sums in another order
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.999


def test_file_gives_labels_and_confidence_of_merged_classes(pictures, tmp_path):
    # three classes of the vocabulary, each the sum of several of the model's
    words = vocabulary.load()
    members = (tuple(range(2)), tuple(range(2, 11)), tuple(range(11, 19)))
    merged = segmenter_of(2, classes=Vocabulary(classes=words.classes[:3]), members=members)
    path = tmp_path / "labels.onnx"

    check = export_onnx(merged, path, SIZE, output="labels", opset=20, pictures=pictures)

    assert check.ok
    labels, confidence = run(path, pictures[:1])
    expected = merged(pictures[0])  # of the same size as the network's input
    assert labels.dtype == confidence.dtype == np.uint8
    assert (labels[0] == expected.labels).mean() > 0.995  # cv2 and ONNX enlarge with different rounding
    assert np.abs(confidence[0].astype(int) - expected.confidence).max() <= 2


def test_file_states_classes_weights_version_and_size(exported, segmenter):
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    stated = session.get_modelmeta().custom_metadata_map

    assert json.loads(stated["classes"]) == list(vocabulary.load().names)
    assert stated["sha256"] == segmenter.sha256
    assert stated["version"] == mfuser_ros.__version__
    assert (stated["width"], stated["height"], stated["output"]) == ("128", "64", "probability")
    assert (stated["temperature"], stated["threshold"]) == ("0.2", "0.4")
    assert session.get_inputs()[0].shape == [2, 64, 128, 3]
    assert session.get_inputs()[0].type == "tensor(uint8)"


def test_file_tells_nothing_of_the_machine_and_holds_plain_operators_alone(exported):
    model = onnx.load(exported)

    assert str(ROOT).encode() not in exported.read_bytes()
    assert [node.op_type for node in model.graph.node if "picture" in node.input] == ["Cast"]  # TensorRT needs it so
    assert {node.op_type for node in model.graph.node}.isdisjoint({"Loop", "Scan", "If"})
    assert {entry.domain for entry in model.opset_import} == {""}  # of no other operators than ONNX's own


def test_segmenter_goes_on_as_before(exported, segmenter):
    assert exported.exists()
    assert {m.backend for m in segmenter.model.modules() if isinstance(m, MVFuser)} == {"auto"}
    assert {m.sampler for m in segmenter.model.modules() if isinstance(m, DeformableAttention)} == {"auto"}


def test_file_of_other_weights_is_found_out_and_not_written(exported, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_write", lambda _module, _pictures, path, *_rest: shutil.copy(exported, path))

    with pytest.raises(NoParityError, match=r"never\.onnx: is not written: ONNX Runtime differs from torch by 0\."):
        export_onnx(segmenter_of(3), tmp_path / "never.onnx", SIZE, batch=2, pictures=pictures)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": (64, 130)}, "size 130x64: both sides must be 64 or more and multiples of 32: 128x64 is near"),
        ({"size": (32, 128)}, "128x64 is near"),
        ({"batch": 0}, "batch 0: must be 1 or more"),
        ({"opset": 17}, "opset 17: choose 18 to 23"),
        ({"output": "logits"}, "output 'logits': choose probability or labels"),
    ],
)
def test_setting_that_cannot_work_is_refused(segmenter, tmp_path, settings, words):
    with pytest.raises(ConfigurationError, match=words):
        export_onnx(segmenter, tmp_path / "never.onnx", **{"size": SIZE, **settings})


def test_model_with_sliding_windows_is_refused(tmp_path):
    windows = segmenter_of(1, ARCHITECTURE.model_copy(update={"input": WindowInput()}))

    with pytest.raises(ConfigurationError, match="random: slides windows"):
        export_onnx(windows, tmp_path / "never.onnx", SIZE)


def test_missing_extra_is_named(segmenter, tmp_path, monkeypatch):
    there = export.find_spec
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxruntime" else there(name))

    with pytest.raises(ConfigurationError, match=r"export needs onnxruntime: pip install 'mfuser_ros\[export\]'"):
        export_onnx(segmenter, tmp_path / "never.onnx", SIZE)


def test_place_that_cannot_be_written_is_named_before_the_work(segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_write", lambda *_: pytest.fail("the work began"))

    with pytest.raises(ConfigurationError, match=r"none/never\.onnx: cannot be written"):
        export_onnx(segmenter, tmp_path / "none" / "never.onnx", SIZE)


@pytest.fixture(scope="module")
def openvino():
    return pytest.importorskip("openvino", reason="needs the [openvino] extra")


def test_openvino_gives_the_masks_of_torch_also_where_a_batch_is_not_full(
    openvino, exported, weights, segmenter, pictures
):
    by_openvino = mfuser_ros.load(weights, device="cpu", onnx=exported)

    for found, expected in zip(by_openvino([*pictures, pictures[0]]), segmenter([*pictures, pictures[0]]), strict=True):
        assert (found.labels == expected.labels).mean() > 0.999
        assert np.abs(found.confidence.astype(int) - expected.confidence).max() <= 1


def test_openvino_refuses_a_file_of_other_weights_size_or_place(openvino, exported, weights, tmp_path):
    with pytest.raises(CheckpointError, match="export again"):
        ExportedNetwork(exported, sha256="cd" * 32, classes=vocabulary.load().names)
    with pytest.raises(CheckpointError, match=r"none\.onnx: no such file"):
        mfuser_ros.load(weights, device="cpu", onnx=tmp_path / "none.onnx")
    with pytest.raises(ConfigurationError, match=r"input_size \(96, 96\)"):
        mfuser_ros.load(weights, device="cpu", onnx=exported, input_size=(96, 96))


def test_missing_openvino_is_named(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # which makes its import fail

    with pytest.raises(ConfigurationError, match=r"pip install 'mfuser_ros\[openvino\]'"):
        mfuser_ros.load(weights, device="cpu", onnx=tmp_path / "any.onnx")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "640"], "--size 640: write WIDTHxHEIGHT"),
        (["--picture", "none.jpg"], "none.jpg: cannot be read"),
        (["--opset", "9"], "opset 9: choose 18 to 23"),
    ],
)
def test_bad_argument_is_an_error_of_ours(weights, tmp_path, arguments, words):
    finished = CliRunner().invoke(app, ["export", str(tmp_path / "never.onnx"), "--model", str(weights), *arguments])

    assert isinstance(finished.exception, MFuserError)  # which `main` turns into one line and exit code 2
    assert words in str(finished.exception)


def test_disagreement_is_exit_code_1(exported, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_write", lambda _module, _pictures, path, *_rest: shutil.copy(exported, path))
    torch.manual_seed(4)
    other = tmp_path / "other.safetensors"
    card = load_model(weights)[1].model_dump(exclude={"sha256"})
    save_model(MFuser(ARCHITECTURE), ModelCard(**card), other)

    finished = CliRunner().invoke(
        app, ["export", str(tmp_path / "never.onnx"), "--size", "128x64", "--batch", "2", "--model", str(other)]
    )

    assert finished.exit_code == 1
    assert "never.onnx: is not written" in finished.stderr
    assert not (tmp_path / "never.onnx").exists()
