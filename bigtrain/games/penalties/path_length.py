"""Path length regularisation (Karras et al. 2020, arXiv:1912.04958, section 3.2): equal steps in w change the image by
equal amounts.

Departs from the released code: the moving average that lengths are compared with is that from before the turn, so that
micro-batches and ranks of one turn see the same.
"""

# Axes: N images, C channels, H height, W width of images and of w, L layers

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from bigtrain.draws import Draws
from bigtrain.games.base import Loss
from bigtrain.games.penalties.base import Cast, LazySettings, Penalty
from bigtrain.games.scene import Drawn, Scene
from bigtrain.losses.penalties import path_lengths
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.settings import PositiveCount


class PathLengthSettings(LazySettings):
    """Path length regularisation; for generators with styles."""

    weight: float = Field(2.0, gt=0)
    """Weight of the mean squared deviation."""
    decay: float = Field(0.01, gt=0, le=1)
    """Weight of the newest mean length in the moving average."""
    shrink: PositiveCount = 2
    """One of so many generated images is used, for memory; micro-batches are multiples of it."""

    def build(self, cast: Cast) -> "PathLength":
        """Return the penalty.

        Raises:
            RecipeError: the generator has no styles.
        """
        if not hasattr(cast.generator, "mapping"):
            raise RecipeError(
                "penalties.path_length: this generator has no styles; remove the penalty, or take a generator such "
                "as stylegan2"
            )
        return PathLength(self, cast.facts.image)


class PathLength(Penalty):
    """weight E (|J^T y| - a)^2, with a the moving average of lengths."""

    name: ClassVar[str] = "path_length"
    player: ClassVar[str] = "generator"
    reads: ClassVar[Literal["same", "none"]] = "none"
    mean: Tensor

    def __init__(self, settings: PathLengthSettings, image: ImageSpec) -> None:
        super().__init__(settings.every)
        self.settings, self.image = settings, image
        self.register_buffer("mean", torch.zeros(()))

    @property
    def differentiates_twice(self) -> bool:
        """Always."""
        return True

    def draw(self, draws: Draws) -> Drawn:
        """Draw the images' noise y, for those that are used."""
        part = draws.every(self.settings.shrink)
        return {"noise": part.normal("path_length/noise", self.image.channels, *self.image.size)}

    def term(self, scene: Scene, drawn: Drawn) -> Loss:
        """Return the penalty over one of `shrink` images."""
        w_NLW = scene.styles(scene.inputs.every(self.settings.shrink))
        length_N = path_lengths(scene.synthesise(w_NLW), w_NLW, drawn["noise"])
        penalty = (length_N - self.mean).square().mean()
        stats = {self.name: length_N.detach().mean(), "path_length_penalty": penalty.detach()}
        return Loss(self.settings.weight * penalty, stats)

    def observe(self, stats: Mapping[str, Tensor]) -> None:
        """Move the average of lengths."""
        self.mean.lerp_(stats[self.name].to(self.mean.dtype), self.settings.decay)
