"""What a vocabulary may ask of a model: renamed and merged classes of any, other words of one with a text tower."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mfuser_ros
from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import ModelCard, save_model
from mfuser_ros.errors import VocabularyError
from mfuser_ros.inference.queries import adopt
from mfuser_ros.network.config import SMALL, EvaText, SiglipText, StoredText
from mfuser_ros.network.model import MFuser
from mfuser_ros.network.text import tokenize
from mfuser_ros.vocabulary import Vocabulary

NAMES = vocabulary.load().names
READER = EvaText(width=16, heads=2, layers=1, contexts=2, tokens=6)


def words(*classes: tuple[str, list[str]]) -> Vocabulary:
    """A vocabulary of (name, queries)."""
    entries = [
        {"id": index, "name": name, "queries": queries, "colour": [index, 0, 0], "role": "static"}
        for index, (name, queries) in enumerate(classes)
    ]
    return Vocabulary.model_validate({"classes": entries})


def card(text: StoredText | EvaText | SiglipText, names: tuple[str, ...] = NAMES) -> ModelCard:
    return ModelCard(
        name="random",
        architecture=SMALL.model_copy(update={"text": text, "classes": len(names)}),
        vocabulary=names,
        threshold=0.07,
        temperature=0.1,  # random scores are nearly equal; this spreads them
        licence="none",
        provenance="random weights, seed 1",
        token_ids=tuple((1, 0, 0, 0, 0) for _ in names) if isinstance(text, SiglipText) else None,
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    description = card(SMALL.text)
    save_model(MFuser(description.architecture), description, path)
    return path


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)


def load(weights, chosen=None):
    return mfuser_ros.load(weights, device="cpu", input_size=(96, 160), vocabulary=chosen)


@pytest.fixture(scope="module")
def plain(weights):
    return load(weights)


GROUPS = [
    ("way", ["road", "sidewalk", "terrain"]),
    ("thing", ["building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"]),
    ("sky", ["sky"]),
    ("mover", ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]),
]


def test_probabilities_of_merged_classes_are_the_sums_of_their_members(weights, plain, picture):
    merged = load(weights, words(*GROUPS))

    fine, coarse = plain.probabilities(picture, (60, 100)), merged.probabilities(picture, (60, 100))

    assert merged.vocabulary.names == ("way", "thing", "sky", "mover")
    for row, (_, queries) in enumerate(GROUPS):
        expected = sum(fine[NAMES.index(query)] for query in queries)
        np.testing.assert_allclose(coarse[row], expected, atol=1e-5)
    result = merged(picture)
    assert set(np.unique(result.labels)) <= {0, 1, 2, 3}
    enlarged = merged.probabilities(picture, (120, 200))
    top = np.sort(enlarged, 0)
    clear = top[-1] - top[-2] > 1e-4  # elsewhere rounding may decide
    assert np.array_equal(result.labels[clear], enlarged.argmax(0)[clear])


def test_renamed_and_recoloured_classes_give_the_same_bits(weights, plain, picture):
    renamed = load(weights, words(*((f"a {name}", [name]) for name in NAMES)))

    result, expected = renamed(picture), plain(picture)

    assert renamed.members is None
    assert result.vocabulary.names[0] == "a road"
    assert np.array_equal(result.mask, expected.mask)
    assert np.array_equal(result.confidence, expected.confidence)


def test_another_order_gives_the_same_picture_with_other_ids(weights, plain, picture):
    backwards = load(weights, words(*((name, [name]) for name in reversed(NAMES))))

    assert np.array_equal(18 - backwards(picture).labels, plain(picture).labels)


def test_leaving_classes_out_makes_no_other_surer(weights, plain, picture):
    favourite = np.bincount(plain(picture).labels.ravel()).argmax()
    rest = [name for name in NAMES if name != NAMES[favourite]]
    partial = load(weights, words(*((name, [name]) for name in rest)))

    whole, lacking = plain.probabilities(picture, (120, 200)), partial.probabilities(picture, (120, 200))
    result, before = partial(picture), plain(picture)

    np.testing.assert_allclose(lacking, np.delete(whole, favourite, 0), atol=1e-6)
    assert (result.confidence <= before.confidence).all()
    assert (result.confidence[before.labels == favourite] < before.confidence[before.labels == favourite]).mean() > 0.9
    # the best of the classes that are left wins, however little it has
    top = np.sort(lacking, 0)
    clear = top[-1] - top[-2] > 1e-4
    assert np.array_equal(result.labels[clear], lacking.argmax(0)[clear])


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (words(("road", ["tarmac"])), "'tarmac': the model has no text tower.*each query be one of road, sidewalk"),
        (words(("road", ["road", "street"])), "'street': the model has no text tower"),
        (words(("road", ["road"]), ("way", ["sidewalk", "road"])), "'road': stands in 'road' and again in 'way'"),
        (words(("road", ["road", "road"])), "'road': stands in 'road' and again in 'road'"),
    ],
)
def test_what_stored_text_cannot_know_is_refused_in_one_line(weights, chosen, reason):
    with pytest.raises(VocabularyError, match=reason) as refused:
        load(weights, chosen)
    assert "\n" not in str(refused.value)


def test_a_model_of_other_classes_asks_for_its_vocabulary(tmp_path):
    description = card(SMALL.text, ("day", "night"))
    save_model(MFuser(description.architecture), description, tmp_path / "two.safetensors")

    with pytest.raises(VocabularyError, match=r"other classes than the shipped vocabulary \(day, night\)"):
        load(tmp_path / "two.safetensors")
    assert load(tmp_path / "two.safetensors", words(("d", ["day"]), ("n", ["night"]))).vocabulary.names == ("d", "n")


@pytest.fixture
def reader() -> tuple[MFuser, ModelCard]:
    """A network with a text tower for two classes."""
    torch.manual_seed(2)
    description = card(READER, ("road", "sidewalk"))
    return MFuser(description.architecture, tokenize(description.vocabulary, READER.tokens)).eval(), description


@torch.no_grad()
def test_text_tower_averages_the_phrases_of_a_class(reader):
    network, description = reader

    members = adopt(network, description, words(("way", ["road", "paved street", "tarmac"]), ("walk", ["sidewalk"])))

    assert members is None
    road, street, tarmac, sidewalk = network.text.encode(
        torch.tensor(tokenize(["road", "paved street", "tarmac", "sidewalk"], READER.tokens))
    )
    torch.testing.assert_close(network.text(), torch.stack([(road + street + tarmac) / 3, sidewalk]))


def test_masks_of_a_model_with_a_text_tower_speak_of_the_words_it_was_given(reader, picture, tmp_path):
    network, description = reader
    save_model(network, description, tmp_path / "reader.safetensors")
    chosen = words(("way", ["paved street", "tarmac"]), ("walk", ["sidewalk"]))

    own = load(tmp_path / "reader.safetensors", words(("road", ["road"]), ("sidewalk", ["sidewalk"])))
    other = load(tmp_path / "reader.safetensors", chosen)

    assert other(picture).vocabulary is chosen
    moved = np.abs(other.probabilities(picture, (24, 40)) - own.probabilities(picture, (24, 40)))
    assert moved.max() > 1e-4


@torch.no_grad()
def test_names_of_its_own_classes_are_merged_by_a_text_tower_too(reader):
    network, description = reader
    before = network.text().clone()

    members = adopt(network, description, words(("ground", ["sidewalk", "road"])))

    assert members == ((1, 0),)
    assert torch.equal(network.text(), before)


@pytest.mark.parametrize(
    "chosen",
    [
        words(("way", ["paved street", "tarmac"])),
        words(("walk", ["sidewalk"]), ("way", ["tarmac"])),
        words(("way", ["road"]), ("walk", ["sidewalk"]), ("bridge", ["bridge", "overpass"]), ("lawn", ["grass"])),
    ],
    ids=["fewer", "another order", "more"],
)
def test_text_tower_takes_any_list_of_classes(reader, picture, tmp_path, chosen):
    network, description = reader
    save_model(network, description, tmp_path / "reader.safetensors")

    segmenter = load(tmp_path / "reader.safetensors", chosen)

    result = segmenter(picture)
    assert result.vocabulary is chosen
    assert set(np.unique(result.labels)) <= set(range(len(chosen)))
    np.testing.assert_allclose(segmenter.probabilities(picture, (24, 40)).sum(0), 1, atol=1e-4)


@torch.no_grad()
def test_known_words_of_a_new_list_take_the_weights_of_their_class(reader):
    network, description = reader
    positions = network.mask_decoder.query_embed.weight.clone()

    adopt(
        network, description, words(("walk", ["sidewalk"]), ("way", ["road"]), ("walk again", ["sidewalk", "tarmac"]))
    )

    assert torch.equal(network.mask_decoder.query_embed.weight[:2], positions[[1, 0]])
    assert network.architecture.classes == 3


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (words(("road", ["a very long country road"]), ("walk", ["sidewalk"])), "needs 7 tokens"),
    ],
)
def test_what_a_text_tower_cannot_say_is_refused(reader, chosen, reason):
    with pytest.raises(VocabularyError, match=reason):
        adopt(*reader, chosen)


def test_words_that_need_a_tokenizer_of_siglip_are_refused():
    text = SiglipText(vocabulary=64, width=16, heads=2, layers=1, contexts=2, hidden=16)
    description = card(text, ("road", "sidewalk"))
    network = MFuser(description.architecture, description.token_ids)

    with pytest.raises(VocabularyError, match=r"'tarmac' is none of its classes: .*SigLIP's tokenizer"):
        adopt(network, description, words(("way", ["tarmac"]), ("walk", ["sidewalk"])))
