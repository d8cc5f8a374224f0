"""Penalties on the discriminator's logits: LeCam and consistency."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from bigtrain.augment.registry import AUGMENTATIONS
from bigtrain.draws import Draws
from bigtrain.games.augmentation import draw_augmentation
from bigtrain.games.base import Loss
from bigtrain.games.penalties.base import Cast, Penalty
from bigtrain.games.scene import Drawn, Scene
from bigtrain.losses.penalties import consistency, lecam
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.settings import Settings


class LeCamSettings(Settings):
    """LeCam regularisation (Tseng et al. 2021, arXiv:2104.03310): logits are drawn to the other side's mean."""

    weight: float = Field(gt=0)
    """Lambda of the paper (0.01 to 0.3 there)."""
    decay: float = Field(0.99, ge=0, lt=1)
    """Weight of the old value in the moving averages of logits."""
    one_sided: bool = False
    """Only pull back logits that are beyond the other side's mean, as the authors' code does."""

    def build(self, cast: Cast) -> "LeCam":
        """Return the penalty."""
        return LeCam(self)


class LeCam(Penalty):
    """weight (E (D(x) - a_fake)^2 + E (D(G(z)) - a_real)^2), with a the moving averages of logits."""

    name: ClassVar[str] = "lecam"
    player: ClassVar[str] = "discriminator"
    reads: ClassVar[Literal["same", "none"]] = "same"
    mean_real: Tensor
    mean_fake: Tensor

    def __init__(self, settings: LeCamSettings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("mean_real", torch.zeros(()))
        self.register_buffer("mean_fake", torch.zeros(()))

    def term(self, scene: Scene, drawn: Drawn) -> Loss:
        """Return the penalty."""
        value = lecam(*scene.logits(), self.mean_real, self.mean_fake, one_sided=self.settings.one_sided)
        return Loss(self.settings.weight * value, {self.name: value.detach()})

    def observe(self, stats: Mapping[str, Tensor]) -> None:
        """Move both averages."""
        for mean, name in ((self.mean_real, "logit_real"), (self.mean_fake, "logit_fake")):
            mean.lerp_(stats[name].to(mean.dtype), 1 - self.settings.decay)


class ConsistencySettings(Settings):
    """Balanced consistency regularisation (Zhao et al. 2020, arXiv:2002.04724): augmenting an image shall not change
    its logit."""

    weight_real: float = Field(10.0, ge=0)
    """Weight on real images; 0 and a weight on generated ones is not in the papers, the other way round is CR."""
    weight_fake: float = Field(10.0, ge=0)
    """Weight on generated images."""
    augment: AUGMENTATIONS.union()  # type: ignore[valid-type]
    """What an image goes through for the second logit."""

    def build(self, cast: Cast) -> "Consistency":
        """Return the penalty."""
        return Consistency(self, cast.facts.image)


class Consistency(Penalty):
    """weight_real E (D(x) - D(T(x)))^2 + weight_fake E (D(G(z)) - D(T(G(z))))^2."""

    name: ClassVar[str] = "consistency"
    player: ClassVar[str] = "discriminator"
    reads: ClassVar[Literal["same", "none"]] = "same"
    strength: Tensor

    def __init__(self, settings: ConsistencySettings, image: ImageSpec) -> None:
        super().__init__()
        self.settings, self.image = settings, image
        self.augmentation = settings.augment.build()
        self.register_buffer("strength", torch.tensor(settings.augment.strength), persistent=False)

    def draw(self, draws: Draws) -> Drawn:
        """Draw the augmentations of real and of generated images."""
        return {
            f"{side}/{name}": tensor
            for side in ("real", "fake")
            for name, tensor in draw_augmentation(
                self.augmentation, draws, f"{self.name}/{side}", self.image, self.strength
            ).items()
        }

    def term(self, scene: Scene, drawn: Drawn) -> Loss:
        """Return the penalty."""
        moved_real, moved_fake = scene.judge_plain(
            self.augmentation(scene.real(), _of_side(drawn, "real")),
            self.augmentation(scene.fake(), _of_side(drawn, "fake")),
        )
        logit_real, logit_fake = scene.logits()
        value_real, value_fake = consistency(logit_real, moved_real), consistency(logit_fake, moved_fake)
        value = self.settings.weight_real * value_real + self.settings.weight_fake * value_fake
        return Loss(value, {self.name: (value_real + value_fake).detach()})


def _of_side(drawn: Drawn, side: str) -> Drawn:
    prefix = f"{side}/"
    return {name.removeprefix(prefix): tensor for name, tensor in drawn.items() if name.startswith(prefix)}
