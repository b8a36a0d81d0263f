"""Original encoders by name: the hub's cache, a hub that answers, one that does not."""

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest

from mfuser_ros.errors import CheckpointError, ConfigurationError
from mfuser_ros.hub import PUBLISHED, hub_file, local_file, why_unreachable

NAME = Path("open_clip:EVA02-L-14-336/merged2b_s6b_b61k")
REPOSITORY = "timm/eva02_large_patch14_clip_336.merged2b_s6b_b61k"
CONTENT = b"the content of a file"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOBODY = "http://127.0.0.1:9"  # the port of `discard`, which nothing listens to


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(cache), raising=False)
    return cache


def test_table_of_the_published_encoders_is_what_timm_and_open_clip_say():
    assert {name: hub_file(name) for name in PUBLISHED} == PUBLISHED
    assert PUBLISHED[str(NAME)].repository == REPOSITORY


def test_path_stands_for_itself():
    assert local_file(Path("weights/dinov2.pth")) == Path("weights/dinov2.pth")


@pytest.mark.parametrize(
    "name", ["timm:vit_large_patch14_dinov2.unheard", "timm:unheard", "open_clip:ViT-L-14/unheard"]
)
def test_unknown_name_is_refused_with_those_that_were_published(name):
    with pytest.raises(ConfigurationError, match=r"knows no such weights: .*open_clip:EVA02-L-14-336/merged2b_s6b"):
        local_file(Path(name))


def test_hub_out_of_reach_is_one_line_at_once():
    begin = time.monotonic()
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:9 cannot be reached .*fetch open_clip_model") as caught:
        local_file(NAME, endpoint=NOBODY)
    assert time.monotonic() - begin < 10  # a busy machine; the hub's own client tries for half a minute
    assert "\n" not in str(caught.value)
    assert REPOSITORY in str(caught.value)


def test_hub_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr("mfuser_ros.hub.PATIENCE_S", 0.2)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as silent:
        # it listens, and nobody serves
        assert why_unreachable(f"http://127.0.0.1:{silent.server_port}") is not None


def test_switch_of_the_hub_is_heeded(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="not in the hub's cache, and HF_HUB_OFFLINE is set"):
        local_file(NAME, endpoint=NOBODY)


def test_file_in_the_cache_needs_no_hub(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = empty_cache / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    (snapshot / "open_clip_model.safetensors").write_bytes(CONTENT)

    assert local_file(NAME, endpoint=NOBODY).read_bytes() == CONTENT


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves one file as the hub does, and 404 for all else."""

    def do_HEAD(self) -> None:
        there = self.path == f"/{REPOSITORY}/resolve/main/open_clip_model.safetensors"
        self.send_response(200 if there or self.path == "/" else 404)
        self.send_header("ETag", '"1"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_file_is_fetched_into_the_cache(hub, empty_cache):
    file = local_file(NAME, endpoint=hub)
    assert file.read_bytes() == CONTENT
    assert empty_cache in file.parents
    assert local_file(NAME, endpoint=NOBODY) == file  # the second time nobody is asked


def test_file_that_the_hub_does_not_have_is_one_line(hub):
    with pytest.raises(CheckpointError, match=r"ViT-L-14-336/openai: the hub does not give the file") as caught:
        local_file(Path("open_clip:ViT-L-14-336/openai"), endpoint=hub)
    assert "\n" not in str(caught.value)


def test_command_without_a_hub_answers_before_it_imports_torch(empty_cache):
    code = (
        "import sys; from pathlib import Path; from mfuser_ros.commands.convert import convert\n"
        "from mfuser_ros.errors import CheckpointError\n"
        f"try: convert(Path('{NAME}'), Path('x.safetensors'), vfm=Path('dinov2.pth'))\n"
        "except CheckpointError as error: print(error, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "HF_ENDPOINT": NOBODY, "HF_HUB_CACHE": str(empty_cache), "HF_HUB_OFFLINE": "0"}

    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert "cannot be reached" in said.stdout
    assert said.stdout.endswith(" False\n")
