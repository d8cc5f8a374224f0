"""Penalties on the discriminator's gradient by its images: R1, R2 and WGAN-GP."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from bigtrain.draws import Draws
from bigtrain.games.base import Loss
from bigtrain.games.penalties.base import Cast, LazySettings, Penalty
from bigtrain.games.scene import Drawn, Scene
from bigtrain.losses.penalties import (
    GradientSquare,
    Judge,
    gradient_penalty,
    gradient_square,
    gradient_square_by_difference,
)
from bigtrain.networks.layers.statistics import has_batchnorm
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec


class R1Settings(LazySettings):
    """R1 (Mescheder et al. 2018, arXiv:1801.04406, eq. 9): gamma / 2 times the mean squared gradient at real images."""

    gamma: float = Field(gt=0)
    """Weight; it grows with the number of pixels of an image (StyleGAN2-ADA: 0.0002 x pixels / batch)."""
    method: Literal["autograd", "finite_difference"] = "autograd"
    """The exact gradient, or its estimate from one random step, which needs no double backward (arXiv:2501.08316)."""
    sigma: float = Field(0.01, gt=0)
    """Length of that step, in pixel values of -1..1."""

    def build(self, cast: Cast) -> "R1":
        """Return the penalty.

        Raises:
            RecipeError: finite differences, but the discriminator has BatchNorm.
        """
        self._check(cast, "r1")
        return R1(self, cast.facts.image)

    def _check(self, cast: Cast, name: str) -> None:
        if self.method == "finite_difference" and has_batchnorm(cast.discriminator):
            raise RecipeError(
                f"penalties.{name}.method: finite_difference judges images and moved ones in one forward, which "
                "BatchNorm would mix; use autograd"
            )


class R2Settings(R1Settings):
    """R2 (Mescheder et al. 2018, eq. 10): the same at generated images."""

    def build(self, cast: Cast) -> "R2":
        """Return the penalty; raises as R1 does."""
        self._check(cast, "r2")
        return R2(self, cast.facts.image)


class R1(Penalty):
    """gamma / 2 E |grad D(x)|^2 at real images."""

    name: ClassVar[str] = "r1"
    player: ClassVar[str] = "discriminator"
    reads: ClassVar[Literal["same", "none"]] = "same"

    def __init__(self, settings: R1Settings, image: ImageSpec) -> None:
        super().__init__(settings.every)
        self.settings, self.image = settings, image

    @property
    def differentiates_twice(self) -> bool:
        """Whether the gradient is the exact one."""
        return self.settings.method == "autograd"

    @property
    def full_precision(self) -> bool:
        """Always: a difference of bf16 logits, divided by sigma, is mostly rounding."""
        return True

    def draw(self, draws: Draws) -> Drawn:
        """Draw the direction of the random step, where there is one."""
        if self.differentiates_twice:
            return {}
        return {"direction": draws.normal(f"{self.name}/direction", self.image.channels, *self.image.size)}

    def term(self, scene: Scene, drawn: Drawn) -> Loss:
        """Return the penalty at real images."""
        return self._at(scene.judge_real, scene.real(), drawn)

    def _at(self, judge: Judge, image_NCHW: Tensor, drawn: Drawn) -> Loss:
        square_N = self._squares(judge, image_NCHW, drawn).square_N
        value = 0.5 * self.settings.gamma * square_N.mean()
        return Loss(value, {self.name: square_N.detach().mean()})

    def _squares(self, judge: Judge, image_NCHW: Tensor, drawn: Drawn) -> GradientSquare:
        if self.differentiates_twice:
            return gradient_square(judge, image_NCHW)
        return gradient_square_by_difference(judge, image_NCHW, drawn["direction"], self.settings.sigma)


class R2(R1):
    """gamma / 2 E |grad D(G(z))|^2 at generated images."""

    name: ClassVar[str] = "r2"
    reads: ClassVar[Literal["same", "none"]] = "none"

    def term(self, scene: Scene, drawn: Drawn) -> Loss:
        """Return the penalty at generated images."""
        return self._at(scene.judge_fake, scene.fake(), drawn)


class GradientPenaltySettings(LazySettings):
    """WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3): gradients between real and generated images have norm
    1."""

    weight: float = Field(10.0, gt=0)
    """Lambda of the paper."""
    target: float = Field(1.0, ge=0)
    """The norm asked for."""

    def build(self, cast: Cast) -> "GradientPenalty":
        """Return the penalty."""
        return GradientPenalty(self)


class GradientPenalty(Penalty):
    """weight E (|grad D| - target)^2 on straight lines between real and generated images, under the real labels."""

    name: ClassVar[str] = "gradient_penalty"
    player: ClassVar[str] = "discriminator"
    reads: ClassVar[Literal["same", "none"]] = "same"

    def __init__(self, settings: GradientPenaltySettings) -> None:
        super().__init__(settings.every)
        self.settings = settings

    @property
    def differentiates_twice(self) -> bool:
        """Always."""
        return True

    def draw(self, draws: Draws) -> Drawn:
        """Draw where between its real and its generated image each point lies."""
        return {"mix": draws.uniform(f"{self.name}/mix", 1)[:, 0]}

    def term(self, scene: Scene, drawn: Drawn) -> Loss:
        """Return the penalty."""
        penalty_N = gradient_penalty(scene.judge_real, scene.real(), scene.fake(), drawn["mix"], self.settings.target)
        return Loss(self.settings.weight * penalty_N.mean(), {self.name: penalty_N.detach().mean()})
