"""The table of augmentations that a recipe's `kind` picks from, and what an augmentation is."""

# Axes: N images, C channels, H height, W width

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from bigtrain.recipe.registry import Registry
from bigtrain.recipe.settings import Settings

AUGMENTATIONS = Registry("augmentation")


class Uniform(Protocol):
    """Where an augmentation's random numbers come from: facts of the turn, never torch's generators."""

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Return float64 [N, *shape], uniform in (0, 1); the numbers of an image depend on that image alone."""
        ...


@dataclass(frozen=True)
class Adaptation:
    """How a strength follows the mean sign of the discriminator's logits for real images."""

    target: float
    """The mean sign that is aimed at."""
    every: int
    """Turns of the discriminator between two moves."""
    speed_images: int
    """Real images that move the strength from 0 to 1."""


class AugmentationSettings(Settings):
    """What all augmentations share."""

    @property
    def strength(self) -> float:
        """The strength when training starts, 0..1."""
        return 1.0

    @property
    def adaptation(self) -> Adaptation | None:
        """How the strength is moved; None: not at all."""
        return None


class Augmentation(nn.Module, ABC):
    """A random change of images, in two parts: what is drawn, and the arithmetic that follows from it.

    Without parameters; constants are buffers that are not saved. Images are in -1..1 and are not clamped to it.
    """

    @abstractmethod
    def draw(self, uniform: Uniform, image_shape: Sequence[int], strength: Tensor) -> dict[str, Tensor]:
        """Return everything that is random, as tensors [N, ...].

        Args:
            uniform: called with names of this augmentation's own.
            image_shape: of the images to come; the last three numbers are C, H, W.
            strength: in 0..1 (0-d), where the augmentation has a strength.
        """

    @abstractmethod
    def forward(self, image_NCHW: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """Return the images changed as drawn, in their own shape and dtype; twice differentiable in the images."""
