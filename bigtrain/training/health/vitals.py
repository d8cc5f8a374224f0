"""What tells early that a GAN collapses: how much generated images differ, and the top singular values of weights.

Measured once a log period, on networks as they are, in eval mode. Axes: N images, C channels, H height, W width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bigtrain.data.batch import Batch
from bigtrain.data.stream.feed import some_images
from bigtrain.data.stream.shards import StreamSet
from bigtrain.draws import seed_of
from bigtrain.games.base import SampleSettings
from bigtrain.networks.layers.singular import largest_weights, top_singular_values
from bigtrain.sampling.truncation import Truncation, sample_draws
from bigtrain.training.run import Run

LARGEST_SIDE = 64  # pixels; larger images are averaged down, so that what is kept of them stays small


def reduced(image_NCHW: Tensor) -> Tensor:
    """Return images in float32 of at most LARGEST_SIDE pixels a side."""
    height, width = image_NCHW.shape[2:]
    return F.adaptive_avg_pool2d(image_NCHW.float(), (min(height, LARGEST_SIDE), min(width, LARGEST_SIDE)))


def mean_distance(image_NCHW: Tensor) -> float:
    """Return the mean Euclidean distance between two of the images, per root of the number of their values."""
    image_NP = image_NCHW.flatten(1)
    return float(F.pdist(image_NP).mean() / image_NP.shape[1] ** 0.5)


def _some_real(run: Run, count: int) -> Batch:
    """Return the first images of the data set, or of the shards that a stream draws first; the same on all ranks."""
    if isinstance(run.shards, StreamSet):
        return some_images(run.shards, count, run.wait_on)
    return run.shards.load(run.shards.numbers()[:count])


class Vitals:
    """Measures a run; the real images it compares with and the latents stay the same for the whole run."""

    def __init__(self, run: Run) -> None:
        """Measure how much some real images differ."""
        self._count = run.recipe.watchdog.diversity_images
        self._real_distance = 0.0
        if self._count > 1:
            real = run.launch.ranks.together(lambda: _some_real(run, self._count))
            if len(real) > 1:
                self._real_distance = mean_distance(reduced(real.on_device(run.launch.device).image_NCHW))

    def measure(self, run: Run) -> dict[str, float]:
        """Return `diversity` (1: generated images differ as much as real ones) and `singular/NETWORK.WEIGHT/1` to 3.

        All ranks return the main process's figures.
        """
        figures = self._diversity(run) | self._singular_values(run)
        return run.launch.ranks.broadcast_object(figures)

    @torch.no_grad()
    def _diversity(self, run: Run) -> dict[str, float]:
        if not self._real_distance:
            return {}
        networks, device = run.game.networks, run.launch.device
        seed, micro_images = seed_of(run.recipe.seed, "vitals"), run.engine.layout.micro_images
        for network in networks.values():
            network.eval()
        parts = [
            reduced(run.game.sample(networks, sample_draws(seed, index_N), SampleSettings(Truncation())))
            for index_N in torch.arange(self._count, device=device).split(micro_images)
        ]
        for network in networks.values():
            network.train()
        return {"diversity": mean_distance(torch.cat(parts)) / self._real_distance}

    @staticmethod
    def _singular_values(run: Run) -> dict[str, float]:
        names, found = [], []
        for network_name, network in run.game.networks.items():
            for name, weight in largest_weights(network, run.recipe.watchdog.singular_layers).items():
                values = top_singular_values(weight)
                names += [f"singular/{network_name}.{name}/{place + 1}" for place in range(len(values))]
                found.append(values)
        return dict(zip(names, torch.cat(found).tolist(), strict=True)) if found else {}
