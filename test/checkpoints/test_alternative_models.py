"""Models other than the published ones are saved and loaded as any model is."""

import pytest
import torch

from mfuser_ros import vocabulary
from mfuser_ros.checkpoints import ModelCard, load_model, save_model
from mfuser_ros.network.config import changed
from mfuser_ros.network.model import MFuser


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion": {"kind": "self-attention", "scan": "forward"}, "towers": "vlm"},
        {"towers": "vfm", "fusion": {"kind": "rein"}, "enhancer": {"kind": "none"}, "text": {"kind": "linked"},
         "head": {"text_attention": False}},
    ],
)  # fmt: skip
def test_saved_alternative_comes_back_with_the_same_masks(changes, tmp_path):
    torch.manual_seed(0)
    network = MFuser(changed("small", changes)).eval().half().float()  # files hold halves
    card = ModelCard(
        name="other",
        architecture=network.architecture,
        vocabulary=vocabulary.load().names,
        threshold=0.4,
        temperature=1.5,
        licence="Apache-2.0",
        provenance="random weights of a test",
    )
    save_model(network, card, tmp_path / "other.safetensors")

    loaded, file = load_model(tmp_path / "other.safetensors")

    pictures = torch.rand(1, 3, 64, 96) * 255
    assert file.architecture == network.architecture
    with torch.inference_mode():
        torch.testing.assert_close(loaded.predict(pictures).mask_logits, network.predict(pictures).mask_logits)
