"""Draws images from averaged networks: image i depends on (seed, i) alone, whatever the batch it is computed in.

Axes: N images, C channels, H height, W width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bigtrain.draws import seed_of
from bigtrain.games.base import Game, SampleSettings
from bigtrain.networks.layers.statistics import has_batchnorm, standing_statistics
from bigtrain.sampling.grids import to_pixels
from bigtrain.sampling.truncation import Truncation, sample_draws


@dataclass(frozen=True)
class StandingSettings:
    """How BatchNorm's statistics are recomputed for sampling (Brock et al. 2019, arXiv:1809.11096, section 3.1)."""

    num_batches: int = 16
    batch_images: int = 256
    seed: int = 0


class Sampler:
    """Networks in eval mode and the game that knows how to draw from them."""

    def __init__(self, game: Game, networks: dict[str, nn.Module], device: torch.device, batch_images: int) -> None:
        self.game, self.networks, self.device, self.batch_images = game, networks, device, batch_images
        for network in networks.values():
            network.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def restand(self, truncation: Truncation, settings: StandingSettings) -> None:
        """Replace running BatchNorm statistics by the mean of those of freshly drawn batches at this truncation."""
        batched = [network for network in self.networks.values() if has_batchnorm(network)]
        if not batched:
            return
        for network in batched:
            with standing_statistics(network):
                for batch in range(settings.num_batches):
                    first = batch * settings.batch_images
                    index_N = torch.arange(first, first + settings.batch_images, device=self.device)
                    draws = sample_draws(seed_of(settings.seed, "standing"), index_N)
                    self.game.sample(self.networks, draws, SampleSettings(truncation))

    def labels(self, index_N: Tensor, seed: int) -> Tensor:
        """Return the labels, int64 [N], that `images` draws for these numbers where it is given none."""
        game: Any = self.game
        label_N: Tensor = game.fake_labels(sample_draws(seed, index_N.to(self.device)))
        return label_N

    @torch.no_grad()
    def images(self, index_N: Tensor, label_N: Tensor | None, truncation: Truncation, seed: int) -> Iterator[Tensor]:
        """Yield uint8 images [<= batch_images, C, H, W] on the CPU for the sample numbers `index_N`, in order.

        Every forward pass has the same shape: the last one is padded, so that figures do not depend on how images are
        dealt.
        """
        for first in range(0, len(index_N), self.batch_images):
            part_N = index_N[first : first + self.batch_images].to(self.device)
            wanted = len(part_N)
            padded_N = torch.cat([part_N, part_N[-1:].expand(self.batch_images - wanted)])
            labels = None
            if label_N is not None:
                part_label_N = label_N[first : first + self.batch_images].to(self.device)
                labels = torch.cat([part_label_N, part_label_N[-1:].expand(self.batch_images - wanted)])
            image_NCHW = self.game.sample(
                self.networks, sample_draws(seed, padded_N), SampleSettings(truncation, labels)
            )
            yield to_pixels(image_NCHW[:wanted]).cpu()


def cycle_labels(labels: Sequence[int], index_N: Tensor) -> Tensor:
    """Return for image i label i mod len(labels) of the list, so that an image keeps its label in any company."""
    table = torch.tensor(list(labels))
    return table[index_N % len(table)]
