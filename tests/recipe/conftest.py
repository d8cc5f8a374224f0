"""A small recipe schema with every form that the real one has, and a folder to write recipes to."""

from collections.abc import Iterator
from typing import Literal

import pytest
from pydantic import Field

from bigtrain.recipe.registry import Registry
from bigtrain.recipe.schedule import Schedule
from bigtrain.recipe.settings import Count, Duration, PositiveCount, Settings, Share

GENERATORS = Registry("generator")


@GENERATORS.add("biggan")
class BigSettings(Settings):
    """A generator."""

    kind: Literal["biggan"] = "biggan"
    width: int = Field(64, ge=1)
    attention_sides: tuple[int, ...] = (64,)


@GENERATORS.add("style")
class StyleSettings(Settings):
    """Another generator."""

    kind: Literal["style"] = "style"
    channels: int = 3


class AdamSettings(Settings):
    """An optimizer."""

    learning_rate: Schedule = 1e-4
    betas: tuple[float, float] = (0.0, 0.9)


class GameSettings(Settings):
    """A game."""

    generator: GENERATORS.union()
    discriminator: BigSettings = BigSettings()


class AverageSettings(Settings):
    """A moving average."""

    halflife_images: Count


class ToyRecipe(Settings):
    """A recipe."""

    name: str
    """Name of the run."""
    seed: int = Field(0, ge=0)
    batch_images: PositiveCount
    holdout: Share = 0.0
    every: Duration = 60.0
    mirror: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    clip_norm: float | None = None
    game: GameSettings
    optimizers: dict[str, AdamSettings] = {}
    ema: tuple[AverageSettings, ...] = ()

    def problems(self) -> Iterator[str]:
        """Yield broken relations."""
        if self.batch_images % 4:
            yield f"batch_images: {self.batch_images} is not a multiple of 4; write {self.batch_images // 4 * 4}"
        for number, average in enumerate(self.ema):
            if average.halflife_images > 1_000_000:
                yield f"ema.{number}.halflife_images: {average.halflife_images} is longer than the run; write less"


GOOD = """\
name: digits
batch_images: 64
game:
  generator:
    kind: biggan
    width: 8
optimizers:
  generator:
    learning_rate: {cosine: [2e-4, 5e-5], over: 20M}
ema:
  - {halflife_images: 5k}
  - halflife_images: 10k
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the recipe good.yaml in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD)
    return tmp_path


@pytest.fixture
def toy_schema():
    """The schema of the recipes in these tests."""
    return ToyRecipe
