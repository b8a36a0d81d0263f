"""Token ids from a file: listed ones, and those of a sentencepiece model."""

import io
import json

import pytest

from mfuser_ros.checkpoints.token_ids import read_token_ids
from mfuser_ros.errors import ConfigurationError, VocabularyError

NAMES = ("road", "traffic light")


def test_listed_ids_come_in_the_order_of_the_names(tmp_path):
    path = tmp_path / "ids.yaml"
    path.write_text("traffic light: [7, 8, 1]\nroad: [5, 1, 1]\nother: nothing\n")
    assert read_token_ids(path, NAMES, 3) == ((5, 1, 1), (7, 8, 1))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("ids.json", {"road": [5, 1, 1]}, "'traffic light' needs a list of 3 ids, it has None"),
        ("ids.json", {"road": [5, 1], "traffic light": [7, 8, 1]}, r"'road' needs .* it has \[5, 1\]"),
        ("ids.json", {"road": [5, 1, "1"], "traffic light": [7, 8, 1]}, "'road' needs"),
        ("ids.json", [[5, 1, 1], [7, 8, 1]], "must give for each name its ids"),
        ("ids.txt", {}, r"ids\.txt: holds no token ids"),
    ],
)
def test_file_that_does_not_list_all_ids_is_refused(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=sentence):
        read_token_ids(tmp_path / name, NAMES, 3)


@pytest.mark.parametrize("content", [None, "a: [", b"\xff\xfe\xff"], ids=["absent", "no YAML", "no text"])
def test_unreadable_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "ids.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError, match=r"ids\.yaml: (cannot be read|is no YAML)") as caught:
        read_token_ids(path, NAMES, 3)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def model() -> bytes:
    """A small sentencepiece model of our own, by no means SigLIP's."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra [siglip]")
    sentences = ["the road and the traffic light", "a traffic sign beside the road", "light traffic on a broad road"]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 20), model_writer=written, vocab_size=25, eos_id=1, unk_id=2, bos_id=-1,
        pad_id=-1, minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


def test_sentencepiece_ids_are_of_the_bare_lower_case_name_ended_and_padded(model, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra [siglip]")
    (tmp_path / "spiece.model").write_bytes(model)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    road, light = pieces.encode("road"), pieces.encode("traffic light")
    length = len(light) + 1
    assert 0 < len(road) < length

    ids = read_token_ids(tmp_path / "spiece.model", ("Road!", "traffic   light"), length)

    assert ids == (tuple(road + [1] * (length - len(road))), (*light, 1))
    with pytest.raises(VocabularyError, match=f"'traffic   light': needs {length} tokens, the text tower reads"):
        read_token_ids(tmp_path / "spiece.model", ("Road!", "traffic   light"), length - 1)


def test_file_that_is_no_sentencepiece_model_is_refused(tmp_path):
    pytest.importorskip("sentencepiece", reason="needs the extra [siglip]")
    (tmp_path / "spiece.model").write_bytes(b"nonsense")
    with pytest.raises(ConfigurationError, match=r"spiece\.model: is no sentencepiece model"):
        read_token_ids(tmp_path / "spiece.model", NAMES, 5)
