"""tqdm's regularisers: numbers by hand, and the frozen copy of the tower."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mfuser_ros import vocabulary
from mfuser_ros.errors import ConfigurationError
from mfuser_ros.network.config import CLIP_L, ClipText, SiglipText, changed
from mfuser_ros.network.model import MFuser
from mfuser_ros.training.regularisers import Anchor, global_embedding, language_loss, last_tokens, plain_words

NAMES = vocabulary.load(Path(__file__).parents[2] / "config" / "vocabulary.yaml").names


def test_language_loss_by_hand() -> None:
    words = torch.tensor([[1.0, 0], [0, 2]])
    queries = torch.tensor([[[3.0, 0], [1, 1]]])  # cosines (1, 0) and (1, 1) / sqrt 2

    loss = language_loss(queries, words)

    first = torch.tensor(1 + torch.tensor(-1.0).exp().item()).log()  # -log(e / (e + 1))
    torch.testing.assert_close(loss, (first + torch.tensor(2.0).log()) / 2)


def test_vision_loss_is_nothing_at_first_and_grows_as_the_tower_moves_alone() -> None:
    torch.manual_seed(0)
    model = MFuser(changed("small", {"towers": "vlm", "fusion": {"kind": "none"}}))
    pictures = torch.rand(2, 3, 64, 96) * 255
    anchor = Anchor(model, NAMES)
    assert anchor(pictures, model(pictures)).vision.item() == 0

    was = last_tokens(model.vlm, pictures).mean(1).detach()
    with torch.no_grad():
        model.vlm.net.blocks[6][0].conv_pwl.weight.mul_(1.5)
    drift = anchor(pictures, model(pictures))

    now = last_tokens(model.vlm, pictures).mean(1)
    torch.testing.assert_close(drift.vision, (now - was).square().mean())
    drift.vision.backward()
    assert model.vlm.net.blocks[6][0].conv_pwl.weight.grad.any()


def _tiny_clip(text: ClipText | SiglipText) -> MFuser:
    torch.manual_seed(0)
    vit = {"img_size": 56, "patch_size": 14, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 20}
    return MFuser(
        CLIP_L.model_copy(
            update={
                "towers": "vlm",
                "vlm": CLIP_L.vlm.model_copy(update={"options": vit}),
                "fusion": CLIP_L.fusion.model_copy(update={"kind": "none", "vfm_bridge": False}),
                "neck": CLIP_L.neck.model_copy(update={"taps": (0, 0, 1, 1)}),
                "text": text,
                "text_width": 20,
            }
        )
    ).eval()


def test_picture_is_compared_in_text_space_where_the_tower_has_a_map_to_it() -> None:
    model = _tiny_clip(ClipText(width=8, heads=2, layers=1))
    pictures = torch.rand(2, 3, 56, 56) * 255
    with torch.no_grad():
        encoded = model.encode(pictures)
        torch.testing.assert_close(global_embedding(model.vlm, encoded.tokens[-1]), encoded.picture[:, 0])


def test_plain_words_are_what_the_text_tower_says_of_the_template_without_contexts() -> None:
    model = _tiny_clip(ClipText(width=8, heads=2, layers=1, contexts=8))

    words = plain_words(model, NAMES)

    from open_clip.tokenizer import SimpleTokenizer  # after the package, which mends torchvision for it

    # by hand: start, "a clean origami of a", the name, end; read at the end
    text = model.text
    ids = SimpleTokenizer().encode("a clean origami of a traffic light")
    row = torch.tensor([[49406, *ids, 49407]])
    with torch.no_grad():
        x = text.token_embedding(row) + text.positional_embedding[: row.shape[1]]
        expected = text.ln_final(text.transformer(x))[0, -1] @ text.text_projection
    torch.testing.assert_close(words[6], expected)
    assert words.shape == (19, 20)
    with torch.no_grad():
        text.contexts.zero_()
    torch.testing.assert_close(plain_words(model, NAMES), words)


def test_network_whose_words_cannot_be_had_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="whose tokenizer ships with us"):
        Anchor(_tiny_clip(SiglipText(width=8, heads=2, layers=1)), NAMES)


def test_tower_is_measured_without_words_where_these_cannot_be_had() -> None:
    model = _tiny_clip(SiglipText(width=8, heads=2, layers=1))
    model.text.set_token_ids([[5, 1, 1, 1, 1]] * 19)
    pictures = torch.rand(1, 3, 56, 56) * 255
    anchor = Anchor(model, None)
    with torch.no_grad():
        model.vlm.net.blocks[1].mlp.fc2.weight.mul_(2)
    drift = anchor(pictures, model(pictures))
    assert drift.language == 0
    assert drift.vision > 0
