"""Stored and encoded text embeddings, token ids, and the cache of the text tower."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mfuser_ros import vocabulary
from mfuser_ros.errors import ConfigurationError, VocabularyError
from mfuser_ros.network.config import EVA02_L, SMALL, ClipText, EvaText, SiglipText
from mfuser_ros.network.text import EvaTextEncoder, SiglipTextEncoder, StoredTextQueries, build_text, tokenize

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = EvaText(vocabulary=64, width=20, heads=2, layers=2, contexts=3, tokens=4)
IDS = [[62, 5, 63, 0], [62, 7, 8, 63]]


@pytest.fixture
def encoder() -> EvaTextEncoder:
    torch.manual_seed(0)
    return EvaTextEncoder(TINY, 28, IDS).eval()


def test_token_ids_of_the_vocabulary_are_the_recorded_ones():
    recorded = load_file(GOLDEN / "unit_tokenize_clip.safetensors")["out.tokens5"]
    assert tokenize(vocabulary.load().names, 5) == recorded.tolist()


def test_token_ids_of_a_sentence_are_the_recorded_ones():
    recorded = load_file(GOLDEN / "unit_tokenize_clip.safetensors")["out.tokens77_prefix16"][19]
    sentence = 'a clean origami of a traffic light, 3 cars & "bikes"!'
    assert tokenize([sentence], 16) == [recorded.tolist()]


def test_name_of_too_many_tokens_is_refused_by_name():
    with pytest.raises(VocabularyError, match="'a very long traffic light': needs 7 tokens"):
        tokenize(["road", "a very long traffic light"], 5)


def test_stored_text_comes_out_at_unit_deviation_and_keeps_its_directions():
    text = StoredTextQueries(19, 512)
    rows = torch.nn.functional.normalize(torch.randn(19, 512, generator=torch.Generator().manual_seed(0)), dim=-1)
    text.load_state_dict({"embeddings": rows})

    scaled = text()

    assert scaled.std().item() == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(torch.nn.functional.normalize(scaled, dim=-1), rows)
    torch.testing.assert_close(text.state_dict()["embeddings"], rows, atol=0, rtol=0)


@torch.no_grad()
def test_tokens_after_the_end_of_text_do_not_change_the_embedding(encoder):
    padded = torch.tensor(IDS)
    other = padded.clone()
    other[0, 3] = 9  # a pad of the first class; its end of text stands before it
    torch.testing.assert_close(encoder.encode(other)[0], encoder.encode(padded)[0])


@torch.no_grad()
def test_contexts_stand_after_the_first_token(encoder):
    sequence = encoder.embed(torch.tensor(IDS)) - encoder.positional_embedding
    tokens = encoder.token_embedding.weight
    expected = torch.stack([tokens[62], *encoder.contexts[0], tokens[7], tokens[8], tokens[63]])
    torch.testing.assert_close(sequence[1], expected)


def test_embedding_is_computed_once_while_nothing_changes(encoder):
    with torch.no_grad():
        first = encoder()
        assert encoder() is first
    with torch.inference_mode():
        assert encoder() is first


def change_weight(encoder: EvaTextEncoder) -> None:
    encoder.contexts.mul_(2)


def change_classes(encoder: EvaTextEncoder) -> None:
    encoder.set_token_ids([[62, 11, 63, 0], [62, 12, 13, 63]])


def load_weights(encoder: EvaTextEncoder) -> None:
    encoder.load_state_dict(EvaTextEncoder(TINY, 28).state_dict())


@pytest.mark.parametrize("change", [change_weight, change_classes, load_weights])
@torch.no_grad()
def test_embedding_follows_a_change_of_weights_or_classes(encoder, change):
    first = encoder().clone()
    change(encoder)
    assert (encoder() - first).abs().max() > 1e-3
    torch.testing.assert_close(encoder(), encoder.encode(encoder.ids))


def test_embedding_follows_a_change_of_type(encoder):
    with torch.no_grad():
        encoder()
        assert encoder.double()().dtype == torch.float64


def test_gradients_reach_the_contexts(encoder):
    with torch.no_grad():
        encoder()  # fills the cache, which training must not see
    encoder().sum().backward()
    assert encoder.contexts.grad is not None
    assert encoder.contexts.grad.abs().max() > 0


def test_token_ids_are_not_saved(encoder):
    assert "ids" not in encoder.state_dict()
    assert "contexts" in encoder.state_dict()


@pytest.mark.parametrize(
    ("ids", "named"),
    [([[1, 2, 3]], r"shape \(1, 3\)"), ([[1, 2, 3, 64]], "1 to 64"), ([[-1, 2, 3, 4]], "-1 to 4")],
)
def test_token_ids_that_do_not_fit_the_tower_are_refused(encoder, ids, named):
    with pytest.raises(ConfigurationError, match=named):
        encoder.set_token_ids(ids)


@torch.no_grad()
def test_siglip_text_tower_sees_padding_and_reads_the_last_position():
    torch.manual_seed(0)
    config = SiglipText(vocabulary=64, width=20, heads=2, layers=2, contexts=3, tokens=4, hidden=32)
    encoder = SiglipTextEncoder(config, 28, IDS).eval()
    padded = torch.tensor(IDS)
    other = padded.clone()
    other[0, 3] = 9  # the last id of the first class
    assert (encoder.encode(other)[0] - encoder.encode(padded)[0]).abs().max() > 1e-3
    torch.testing.assert_close(encoder.encode(other)[1], encoder.encode(padded)[1])


@torch.no_grad()
def test_clip_and_eva_text_towers_differ_in_the_activation_only():
    eva = EvaTextEncoder(TINY, 28, IDS).eval()
    clip = EvaTextEncoder(ClipText(**TINY.model_dump(exclude={"kind"})), 28, IDS).eval()
    clip.load_state_dict(eva.state_dict())
    difference = (clip() - eva()).abs().max()
    assert 0 < difference < 0.1  # sigmoid(1.702 x) for the normal distribution function: at most 0.02 apart


def test_text_tower_without_token_ids_says_what_is_missing():
    with pytest.raises(ConfigurationError, match="no token ids"):
        EvaTextEncoder(TINY, 28)()


def test_text_of_another_number_of_classes_is_refused():
    with pytest.raises(ConfigurationError, match="2 classes: architecture eva02-l has 19"):
        build_text(EVA02_L, IDS)


def test_small_stores_its_text_and_the_published_model_encodes_it():
    assert isinstance(build_text(SMALL), StoredTextQueries)
    with torch.device("meta"):
        assert isinstance(build_text(EVA02_L), EvaTextEncoder)
