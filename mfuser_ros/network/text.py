"""One text embedding for each class: stored ones, or those of a text tower with learned contexts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfuser_ros.errors import ConfigurationError, VocabularyError
from mfuser_ros.network import torchvision_mend
from mfuser_ros.network.alternatives import LinkedQueries, RankedTokens
from mfuser_ros.network.config import Architecture, ClipText, DroppedText, EvaText, LinkedText, SiglipText, StoredText

EncodedText = EvaText | ClipText | SiglipText


class StoredTextQueries(nn.Module):
    """Embeddings that ship with the weights; they come out at unit deviation.

    CLIP's embeddings have length 1, so their entries are small: 0.04 at width 512. Divided by the deviation of all
    entries together they are of the size that the decoder's layers start from; directions stay as they were.
    """

    embeddings: Tensor

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("embeddings", torch.randn(classes, width))

    def forward(self) -> Tensor:
        """(K, width) embeddings, one for each class."""
        return self.embeddings / self.embeddings.std()


class DroppedTextQueries(nn.Module):
    """What a text tower gave for the classes, in its place; the layers behind it were trained with these numbers."""

    embeddings: Tensor

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("embeddings", torch.randn(classes, width))

    def forward(self) -> Tensor:
        """(K, width) embeddings, one for each class."""
        return self.embeddings


@dataclass(frozen=True)
class _Style:
    """In what the text towers differ besides their sizes (spec of MFuser section 4.3)."""

    activation: Callable[[Tensor], Tensor]
    epsilon: float  # of the layer norms
    causal: bool


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


_STYLES = {
    "eva02": _Style(F.gelu, 1e-5, causal=True),
    "clip": _Style(_quick_gelu, 1e-5, causal=True),
    "siglip": _Style(partial(F.gelu, approximate="tanh"), 1e-6, causal=False),
}


class _Block(nn.Module):
    """Pre-norm transformer block with open_clip's parameter names."""

    def __init__(self, width: int, heads: int, hidden: int, style: _Style) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, style.epsilon)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, style.epsilon)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, hidden), "c_proj": nn.Linear(hidden, width)})
        self.activation = style.activation

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        normed = self.ln_1(x)
        attended, _ = self.attn(normed, normed, normed, attn_mask=hidden, need_weights=False)
        x = x + attended
        mixed: Tensor = x + self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(x))))
        return mixed


class _Transformer(nn.Module):
    def __init__(self, config: EncodedText) -> None:
        super().__init__()
        style = _STYLES[config.kind]
        hidden = config.hidden if isinstance(config, SiglipText) else 4 * config.width
        self.causal = style.causal
        self.resblocks = nn.ModuleList(_Block(config.width, config.heads, hidden, style) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        hidden = None
        if self.causal:
            hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        for block in self.resblocks:
            x = block(x, hidden)
        return x


class TextEncoder(nn.Module, ABC):
    """A text tower with contexts that are learned and shared by all classes; they follow the first token.

    Parameter names are open_clip's; token ids are no weights and are not saved with them.

    Source: spec of MFuser sections 4.1 to 4.3.
    """

    ids: Tensor | None

    def __init__(self, config: EncodedText, token_ids: Sequence[Sequence[int]] | None = None) -> None:
        """Build with random weights.

        Args:
            config: sizes of the tower.
            token_ids: ids of each class, padded to `config.tokens`; `set_token_ids` gives them later.

        Raises:
            ConfigurationError: ids of a wrong number, or outside the tower's vocabulary.
        """
        super().__init__()
        self.config = config
        length = config.tokens + config.contexts
        self.contexts = nn.Parameter(torch.empty(1, config.contexts, config.width))
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(length, config.width))
        self.transformer = _Transformer(config)
        self.ln_final = nn.LayerNorm(config.width, _STYLES[config.kind].epsilon)
        self.register_buffer("ids", None, persistent=False)
        # of the published tower and of OpenAI's CLIP
        nn.init.trunc_normal_(self.contexts)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        self._cached: tuple[object, Tensor] | None = None
        self._phrases: list[int] | None = None
        if token_ids is not None:
            self.set_token_ids(token_ids)

    def set_token_ids(self, token_ids: Sequence[Sequence[int]], phrases: Sequence[int] | None = None) -> None:
        """Choose the classes by the ids of their names.

        Args:
            token_ids: (P, tokens) as `tokenize` gives them, the phrases of a class one after the other.
            phrases: how many phrases each of the K classes has, P in all; None: one for each.

        Raises:
            ConfigurationError: ids of a wrong number, or outside the tower's vocabulary.
        """
        ids = torch.as_tensor(token_ids, dtype=torch.long, device=self.contexts.device)
        if ids.ndim != 2 or ids.shape[1] != self.config.tokens:
            raise ConfigurationError(
                f"token ids of shape {tuple(ids.shape)}: the text tower reads {self.config.tokens} ids for each class"
            )
        if ids.device.type != "meta" and not 0 <= int(ids.min()) <= int(ids.max()) < self.config.vocabulary:
            raise ConfigurationError(
                f"token ids {int(ids.min())} to {int(ids.max())}: the tower knows 0 to {self.config.vocabulary - 1}"
            )
        if phrases is not None and (sum(phrases) != len(ids) or min(phrases) < 1):
            raise ConfigurationError(f"token ids of {len(ids)} phrases: classes of {list(phrases)} phrases need others")
        self.ids = ids
        self._phrases = None if phrases is None else list(phrases)
        self._cached = None

    def forward(self) -> Tensor:
        """(K, width) embeddings, one for each class, not normalised; the mean of its phrases where it has several.

        Without gradients the result is kept until weights, classes, device or type change.

        Raises:
            ConfigurationError: no token ids were given.
        """
        if self.ids is None:
            raise ConfigurationError("the text tower has no token ids: give those of the class names")
        if torch.is_grad_enabled() or any(weight.is_inference() for weight in self.parameters()):
            return self._of_classes(self.encode(self.ids))
        state = tuple((weight.data_ptr(), weight._version, weight.dtype) for weight in self.parameters())
        if self._cached is None or self._cached[0] != state:
            self._cached = (state, self._of_classes(self.encode(self.ids)))
        return self._cached[1]

    @torch.no_grad()
    def dropped(self) -> DroppedTextQueries:
        """What this tower gives for its classes, without the tower.

        Raises:
            ConfigurationError: no token ids were given.
        """
        embeddings = self()
        text = DroppedTextQueries(*embeddings.shape)
        text.embeddings = embeddings.clone()
        return text

    def _of_classes(self, embeddings: Tensor) -> Tensor:
        if self._phrases is None:
            return embeddings
        return torch.stack([group.mean(0) for group in torch.split(embeddings, self._phrases)])

    def encode(self, ids: Tensor) -> Tensor:
        """(K, tokens) token ids -> (K, width) embeddings, computed anew."""
        # once for each vocabulary, so there is nothing to win by half precision
        with torch.autocast(ids.device.type, enabled=False):
            return self.read(self.ln_final(self.transformer(self.embed(ids))), ids)

    def embed(self, ids: Tensor) -> Tensor:
        """(K, tokens) token ids -> (K, tokens + contexts, tower width): first token, contexts, the rest."""
        tokens = self.token_embedding(ids)
        contexts = self.contexts.expand(len(ids), -1, -1)
        return torch.cat([tokens[:, :1], contexts, tokens[:, 1:]], 1) + self.positional_embedding

    def encode_plain(self, ids: Tensor) -> Tensor:
        """(K, n) token ids of whole phrases, n at most tokens + contexts -> (K, width) embeddings without contexts."""
        embedded = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        return self.read(self.ln_final(self.transformer(embedded)), ids)

    @abstractmethod
    def read(self, x: Tensor, ids: Tensor) -> Tensor:
        """(K, tokens + contexts, tower width) normed tokens and their ids -> (K, width) embeddings."""


class EvaTextEncoder(TextEncoder):
    """The text tower of EVA02-CLIP, or of CLIP: causal, read at the end-of-text token, which has the largest id."""

    def __init__(
        self, config: EvaText | ClipText, width: int, token_ids: Sequence[Sequence[int]] | None = None
    ) -> None:
        """As `TextEncoder`; `width` is that of the embeddings that come out."""
        super().__init__(config, token_ids)
        self.text_projection = nn.Parameter(torch.empty(config.width, width))
        nn.init.normal_(self.text_projection, std=config.width**-0.5)

    def read(self, x: Tensor, ids: Tensor) -> Tensor:
        end_of_text = ids.argmax(-1) + x.shape[1] - len(ids[0])  # contexts stand before it
        last = x[torch.arange(len(ids), device=x.device), end_of_text]
        embeddings: Tensor = last @ self.text_projection
        return embeddings


class SiglipTextEncoder(TextEncoder):
    """The text tower of SigLIP: every token sees every other, padding too, and the last one is read.

    There is no start token, so the contexts stand inside the class name, after its first piece.
    """

    def __init__(self, config: SiglipText, width: int, token_ids: Sequence[Sequence[int]] | None = None) -> None:
        """As `TextEncoder`; `width` is that of the embeddings that come out."""
        super().__init__(config, token_ids)
        self.head = nn.Linear(config.width, width)

    def read(self, x: Tensor, ids: Tensor) -> Tensor:  # noqa: ARG002  # the place is always the last
        embeddings: Tensor = self.head(x[:, -1])
        return embeddings


def build_text(
    architecture: Architecture,
    token_ids: Sequence[Sequence[int]] | None = None,
    learned: Sequence[RankedTokens] = (),
) -> StoredTextQueries | DroppedTextQueries | LinkedQueries | TextEncoder:
    """The text side of an architecture, or what stands in its place, with random weights.

    Args:
        architecture: says which, and how wide.
        token_ids: (classes, tokens) ids of the class names for a text tower; they may also come later.
        learned: tokens of each fused stage, for queries that are linked to them.

    Raises:
        ConfigurationError: the ids do not fit the tower or the number of classes, or the text is stored.
    """
    if token_ids is not None and len(token_ids) != architecture.classes:
        raise ConfigurationError(
            f"token ids of {len(token_ids)} classes: architecture {architecture.name} has {architecture.classes}"
        )
    if isinstance(architecture.text, StoredText):
        return StoredTextQueries(architecture.classes, architecture.text_width)
    if isinstance(architecture.text, DroppedText):
        return DroppedTextQueries(architecture.classes, architecture.text_width)
    if isinstance(architecture.text, LinkedText):
        return LinkedQueries(learned, architecture.head.width)
    if isinstance(architecture.text, SiglipText):
        return SiglipTextEncoder(architecture.text, architecture.text_width, token_ids)
    return EvaTextEncoder(architecture.text, architecture.text_width, token_ids)


def tokenize(names: Sequence[str], tokens: int) -> list[list[int]]:
    """Ids of class names in OpenAI's byte-pair vocabulary: start, name, end, then zeros up to `tokens`.

    The bare name without a template, lower-cased, as the published models were trained.

    Raises:
        VocabularyError: a name needs more ids than the text tower reads.
    """
    torchvision_mend.mend()
    from open_clip.tokenizer import SimpleTokenizer  # noqa: PLC0415  # stored text does without

    tokenizer = SimpleTokenizer()
    rows = []
    for name in names:
        row = [tokenizer.sot_token_id, *tokenizer.encode(name), tokenizer.eot_token_id]
        if len(row) > tokens:
            raise VocabularyError(f"class {name!r}: needs {len(row)} tokens, the text tower reads {tokens}: shorten it")
        rows.append(row + [0] * (tokens - len(row)))
    return rows
