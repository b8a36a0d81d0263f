"""Rates and progress of a training, and the shipped recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfuser_ros.errors import ConfigurationError
from mfuser_ros.training.config import load_recipe
from mfuser_ros.training.loop import Limits
from mfuser_ros.training.optimizer import rate_share

RECIPE = Path(__file__).parents[2] / "config" / "train" / "small.yaml"


@pytest.mark.parametrize(
    ("step", "progress", "share"),
    [(0, 0.0, 1 / 200), (99, 0.0, 0.5), (199, 0.0, 1.0), (5000, 0.5, 0.5358867), (9999, 1.0, 0.0)],  # 0.5 ** 0.9
)
def test_rate_warms_up_and_ends_at_zero(step: int, progress: float, share: float) -> None:
    assert rate_share(step, progress, load_recipe(RECIPE).optimizer) == pytest.approx(share)


@pytest.mark.parametrize(
    ("step", "elapsed_s", "progress"),
    [(0, 0, 0.0), (500, 60, 0.5), (100, 300, 0.5), (100, 600, 1.0), (1000, 10, 1.0), (900, 700, 1.0)],
)
def test_progress_is_of_steps_or_time_whichever_is_further(step: int, elapsed_s: float, progress: float) -> None:
    assert Limits(steps=1000, minutes=10).progress(step, elapsed_s) == pytest.approx(progress)


def test_without_a_time_limit_steps_alone_count() -> None:
    assert Limits(steps=1000).progress(250, 1e9) == 0.25


def test_shipped_recipe_loads() -> None:
    recipe = load_recipe(RECIPE)
    assert recipe.preset == "small"
    assert recipe.batch == 16
    used = {f"{source.dataset}/{source.split}" for source in recipe.sources}
    assert not used & {"camvid/dusk", "idd_lite/val", "cityscapes256/val"}  # these measure and select


@pytest.mark.parametrize(
    ("change", "to", "message"),
    [("clip: 2", "clip: -2", "optimizer.clip"), ("seed: 0", "sead: 0", "s[ee]"), ("preset: small\n", "", "preset")],
)
def test_wrong_recipe_is_refused_with_the_key(tmp_path: Path, change: str, to: str, message: str) -> None:
    text = RECIPE.read_text(encoding="utf-8")
    assert change in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(change, to, 1), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=rf"wrong\.yaml: .*{message}"):
        load_recipe(path)
