"""BigGAN's two turns (64 px, width 32, batch 16, float32, 2 CPU threads) with and without what makes them cheaper.

Compared: resampling fused into the convolutions against one after the other, spectral normalisation advanced once per
turn against in every forward, and both against both. Same weights, same batch; a turn is forward, backward, Adam step.
"""

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.reference_forms import iterate_per_forward, unfuse_resampling
from benchmarks.timing import Row, compare, main
from bigtrain.networks.biggan import BigGANDiscriminatorSettings, BigGANGeneratorSettings
from bigtrain.networks.layers.spectral import advance_power_iterations
from bigtrain.recipe.image import ImageSpec

IMAGE = ImageSpec(side=64, channels=3, num_classes=1000)
WIDTH = 32
BATCH_IMAGES = 16
NUM_THREADS = 2
Change = Callable[[nn.Module], nn.Module]


def _both(network: nn.Module) -> nn.Module:
    return iterate_per_forward(unfuse_resampling(network))


CHANGES: dict[str, Change] = {
    "fused resampling": unfuse_resampling,
    "power iteration per turn": iterate_per_forward,
    "both": _both,
}


class Turns:
    """Both players' turns on fixed inputs."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module, *, advances: bool) -> None:
        self.generator, self.discriminator, self.advances = generator, discriminator, advances
        self.adam = {
            network: torch.optim.Adam(network.parameters(), lr=1e-5, betas=(0.0, 0.999))
            for network in (generator, discriminator)
        }
        draws = torch.Generator().manual_seed(0)
        self.latent_NZ = torch.randn(BATCH_IMAGES, generator.latent_dim, generator=draws)  # type: ignore[call-overload]
        self.label_N = torch.randint(IMAGE.num_classes, (BATCH_IMAGES,), generator=draws)
        self.real_NCHW = torch.rand(BATCH_IMAGES, IMAGE.channels, IMAGE.side, IMAGE.side, generator=draws) * 2 - 1

    def play_discriminator(self) -> None:
        """Play the discriminator's turn: hinge on real and fake in one forward."""
        self._begin(self.discriminator, frozen=self.generator)
        with torch.no_grad():
            fake_NCHW = self.generator(self.latent_NZ, self.label_N)
        logit_N = self.discriminator(torch.cat((self.real_NCHW, fake_NCHW)), self.label_N.repeat(2))
        real_N, fake_N = logit_N.chunk(2)
        loss: torch.Tensor = F.relu(1 - real_N).mean() + F.relu(1 + fake_N).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.adam[self.discriminator].step()

    def play_generator(self) -> None:
        """Play the generator's turn."""
        self._begin(self.generator, frozen=self.discriminator)
        (-self.discriminator(self.generator(self.latent_NZ, self.label_N), self.label_N).mean()).backward()
        self.adam[self.generator].step()

    def _begin(self, network: nn.Module, frozen: nn.Module) -> None:
        frozen.requires_grad_(False)
        network.requires_grad_(True)
        self.adam[network].zero_grad()
        if self.advances:
            advance_power_iterations(network)


def measure() -> list[Row]:
    """Return a row for each turn and each thing left out."""
    torch.set_num_threads(NUM_THREADS)
    torch.manual_seed(0)
    generator = BigGANGeneratorSettings(width=WIDTH, init="normal02").build(IMAGE)
    discriminator = BigGANDiscriminatorSettings(width=WIDTH, init="normal02").build(IMAGE)
    ours = Turns(generator, discriminator, advances=True)
    rows = []
    for name, change in CHANGES.items():
        reference = Turns(change(generator), change(discriminator), advances=change is unfuse_resampling)
        title = f"biggan-64 width {WIDTH} batch {BATCH_IMAGES}, {name}"
        rows.append(compare(f"{title}: discriminator turn", ours.play_discriminator, reference.play_discriminator))
        rows.append(compare(f"{title}: generator turn", ours.play_generator, reference.play_generator))
    return rows


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
