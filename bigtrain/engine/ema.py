"""Exponential moving averages of generator weights, with a half-life in images (Karras et al. 2018, arXiv:1710.10196;
2020, arXiv:1912.04958).

Parameters and BatchNorm's running statistics move by the same decay, in one foreach call. All other buffers are copied:
the vectors of spectral normalisation are never averaged, but advanced by one power iteration on the averaged weight
when used.
"""

import copy
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from bigtrain.games.base import Game
from bigtrain.networks.layers.spectral import advance_power_iterations
from bigtrain.networks.layers.statistics import running_statistics_names
from bigtrain.recipe.settings import Count, PositiveCount, Settings


class AverageSettings(Settings):
    """One moving average of the generator's weights."""

    halflife_images: PositiveCount
    """Images after which an old weight counts half."""
    rampup: float | None = Field(None, gt=0)
    """Early on, the half-life is at most this share of the images seen (StyleGAN2-ADA: 0.05); None: no ramp-up."""
    start_images: Count = 0
    """Before this many images the average is a plain copy (BigGAN-PyTorch: 20,000 iterations)."""

    @property
    def name(self) -> str:
        """How folders, figures and checkpoints name this average."""
        return f"ema-{self.halflife_images}"

    def decay(self, batch_images: int, images_seen: int) -> float:
        """Return beta = 2 ** (-batch / half-life), the weight of the old average at this step."""
        if images_seen < self.start_images:
            return 0.0
        halflife_images = float(self.halflife_images)
        if self.rampup is not None:
            halflife_images = min(halflife_images, images_seen * self.rampup)
        return 0.5 ** (batch_images / halflife_images) if halflife_images > 0 else 0.0


class WeightAverage:
    """Averaged copies of some networks; `settings` says how fast they follow."""

    def __init__(self, settings: AverageSettings, networks: Mapping[str, nn.Module]) -> None:
        self.settings = settings
        self.networks = {
            name: copy.deepcopy(network).eval().requires_grad_(False) for name, network in networks.items()
        }
        # The lists are built once: a state_dict a step would cost more than the average itself.
        self._averaged: list[Tensor] = []
        self._followed: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._originals: list[Tensor] = []
        for name, network in networks.items():
            self._pair(network, self.networks[name])

    def _pair(self, live: nn.Module, kept: nn.Module) -> None:
        self._averaged += [p.data for p in kept.parameters()]
        self._followed += [p.data for p in live.parameters()]
        live_buffers, statistics = dict(live.named_buffers()), running_statistics_names(live)
        persistent = kept.state_dict().keys()
        for name, buffer in kept.named_buffers():
            if name not in persistent:
                continue  # scratch space of a layer, such as statistics that wait to be committed
            averaged = name in statistics
            (self._averaged if averaged else self._copies).append(buffer)
            (self._followed if averaged else self._originals).append(live_buffers[name])

    @torch.no_grad()
    def update(self, batch_images: int, images_seen: int) -> None:
        """Move the averages towards the live networks after a step of `batch_images`."""
        decay = self.settings.decay(batch_images, images_seen)
        torch._foreach_lerp_(self._averaged, self._followed, 1 - decay)
        if self._copies:
            torch._foreach_copy_(self._copies, self._originals)

    def ready_networks(self) -> dict[str, nn.Module]:
        """Return copies of the averaged networks for sampling: spectral vectors fitted to the averaged weights."""
        ready = {name: copy.deepcopy(network) for name, network in self.networks.items()}
        for network in ready.values():
            advance_power_iterations(network)
        return ready


class WeightAverages:
    """All averages that a recipe asks for, in its order; the first one is the default for samples."""

    def __init__(self, settings: tuple[AverageSettings, ...], game: Game) -> None:
        networks = {name: game.networks[name] for name in game.averaged}
        self.averages = {each.name: WeightAverage(each, networks) for each in settings}

    def update(self, batch_images: int, images_seen: int) -> None:
        """Move every average after a step."""
        for average in self.averages.values():
            average.update(batch_images, images_seen)

    def state(self) -> dict[str, Tensor]:
        """Return all averaged tensors by "average/network/key"."""
        return {
            f"{average_name}/{network_name}/{key}": tensor
            for average_name, average in self.averages.items()
            for network_name, network in average.networks.items()
            for key, tensor in network.state_dict().items()
        }
