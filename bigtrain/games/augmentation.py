"""Augmentation of what the discriminator sees, and the strength that adapts to how well it knows the real images
(Karras et al. 2020, arXiv:2006.06676, section 3)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bigtrain.augment.ada import adapted_probability
from bigtrain.augment.registry import Adaptation, Augmentation
from bigtrain.draws import Draws
from bigtrain.games.scene import Drawn
from bigtrain.recipe.image import ImageSpec


def draw_augmentation(
    augmentation: Augmentation, draws: Draws, stream: str, image: ImageSpec, strength: Tensor
) -> Drawn:
    """Return what an augmentation needs for the images of a micro-batch, from draws under a stream of its own."""

    def uniform(name: str, *shape: int) -> Tensor:
        return draws.uniform(f"{stream}/{name}", *shape)

    drawn: Drawn = augmentation.draw(uniform, (image.channels, *image.size), strength)
    return drawn


class AdaptiveStrength(nn.Module):
    """The strength p of an augmentation, and the mean sign of real logits since it was last moved.

    Args:
        adaptation: how p follows the sign; None: it stays.
        strength: p at first.
        batch_images: images that one turn of the discriminator shows.
    """

    strength: Tensor
    sign_sum: Tensor
    sign_turns: Tensor

    def __init__(self, adaptation: Adaptation | None, strength: float, batch_images: int) -> None:
        super().__init__()
        self.adaptation, self.batch_images = adaptation, batch_images
        self.register_buffer("strength", torch.tensor(strength))
        self.register_buffer("sign_sum", torch.zeros(()))
        self.register_buffer("sign_turns", torch.zeros(()))

    def observe(self, stats: Mapping[str, Tensor]) -> None:
        """See the statistics of a main turn of the discriminator; move p after every so many of them.

        Whether it is time is a tensor too: the host is not asked.
        """
        adaptation = self.adaptation
        if adaptation is None:
            return
        self.sign_sum += stats["sign_real"].to(self.sign_sum.dtype)
        self.sign_turns += 1
        is_time = self.sign_turns >= adaptation.every
        moved = adapted_probability(
            self.strength,
            self.sign_sum / self.sign_turns,
            adaptation.target,
            self.batch_images * adaptation.every,
            adaptation.speed_images,
        )
        self.strength.copy_(torch.where(is_time, moved, self.strength))
        for counter in (self.sign_sum, self.sign_turns):
            counter.masked_fill_(is_time, 0)
