"""Files of the original encoders by their names in timm and open_clip, from the Hugging Face hub or its local cache."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from mfuser_ros.errors import CheckpointError, ConfigurationError

TIMM, OPEN_CLIP = "timm:", "open_clip:"
PATIENCE_S = 3.0  # for the hub's first answer


class HubFile(NamedTuple):
    """A file on the hub."""

    repository: str
    name: str


# what the published models were made from; known without the seconds that timm and open_clip take to import
PUBLISHED = {
    "timm:vit_large_patch14_dinov2.lvd142m": HubFile("timm/vit_large_patch14_dinov2.lvd142m", "model.safetensors"),
    "open_clip:EVA02-L-14-336/merged2b_s6b_b61k": HubFile(
        "timm/eva02_large_patch14_clip_336.merged2b_s6b_b61k", "open_clip_model.safetensors"
    ),
    "open_clip:ViT-L-14-336/openai": HubFile("timm/vit_large_patch14_clip_336.openai", "open_clip_model.safetensors"),
    "open_clip:ViT-L-16-SigLIP-384/webli": HubFile("timm/ViT-L-16-SigLIP-384", "open_clip_model.safetensors"),
}


def local_file(source: Path, *, endpoint: str | None = None) -> Path:
    """The file that a path or a name stands for; a name's is fetched unless the hub's cache has it.

    Args:
        source: a path, ``timm:NAME`` (as timm.create_model takes it, with the tag), or ``open_clip:MODEL/TAG``.
        endpoint: of the hub; None: the one that huggingface_hub is set to (HF_ENDPOINT).

    Raises:
        ConfigurationError: timm or open_clip knows no such weights on the hub.
        CheckpointError: the hub cannot be reached or does not give the file.
    """
    if not str(source).startswith((TIMM, OPEN_CLIP)):
        return source
    file = PUBLISHED.get(str(source)) or hub_file(str(source))
    import huggingface_hub.constants  # noqa: PLC0415  # only names need it
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    cached = huggingface_hub.try_to_load_from_cache(*file)
    if isinstance(cached, str):
        return Path(cached)
    endpoint = endpoint or huggingface_hub.constants.ENDPOINT
    mend = (
        f"fetch {file.name} of {endpoint}/{file.repository} on a machine that can, and give its path in place of the "
        "name"
    )
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise CheckpointError(f"{source}: is not in the hub's cache, and HF_HUB_OFFLINE is set: unset it, or {mend}")
    unreachable = why_unreachable(endpoint)
    if unreachable:  # the hub's own client would try again for half a minute
        raise CheckpointError(f"{source}: {endpoint} cannot be reached ({unreachable}): {mend}")
    try:
        return Path(huggingface_hub.hf_hub_download(*file, endpoint=endpoint))
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{source}: the hub does not give the file ({reason}): {mend}") from error


def hub_file(name: str) -> HubFile:
    """Where timm or open_clip keeps the weights of a name.

    Raises:
        ConfigurationError: it knows no such weights on the hub.
    """
    from mfuser_ros.network import torchvision_mend  # noqa: PLC0415  # imports torch

    known = ", ".join(PUBLISHED)
    torchvision_mend.mend()
    if name.startswith(TIMM):
        import timm  # noqa: PLC0415  # imports torchvision, hence after the mend

        try:
            settings = timm.models.get_pretrained_cfg(name.removeprefix(TIMM))
        except RuntimeError:  # a model that it knows, a tag that it does not
            settings = None
        if settings is None or not settings.hf_hub_id:
            raise ConfigurationError(f"{name}: timm knows no such weights: the published encoders are {known}")
        return HubFile(settings.hf_hub_id, "model.safetensors")
    import open_clip  # noqa: PLC0415  # imports torchvision, hence after the mend

    model, _, tag = name.removeprefix(OPEN_CLIP).partition("/")
    repository = open_clip.get_pretrained_cfg(model, tag).get("hf_hub", "")
    if not repository:
        raise ConfigurationError(f"{name}: open_clip knows no such weights: the published encoders are {known}")
    return HubFile(repository.rstrip("/"), "open_clip_model.safetensors")


def why_unreachable(endpoint: str) -> str | None:
    """Ask a server once and wait `PATIENCE_S` at most: None if it answers anything, else why not."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            # a scheme other than http(s) is the user's own HF_ENDPOINT
            with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PATIENCE_S):
                outcome.append(None)
        except urllib.error.HTTPError:
            outcome.append(None)  # an answer, too
        except (OSError, ValueError) as error:
            outcome.append(str(getattr(error, "reason", error)))

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name knows no time limit of its own
    thread.start()
    thread.join(PATIENCE_S)
    return outcome[0] if outcome else f"no answer within {PATIENCE_S:g} s"
