"""A run's discriminator as its next turn would find it, asked about images without augmentation.

Axes: N images, L images that have a logit.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bigtrain.data.batch import Batch
from bigtrain.evaluation.trained import load_trained
from bigtrain.games.base import Game
from bigtrain.networks.layers.minibatch_std import has_minibatch_std, set_minibatch_std
from bigtrain.networks.layers.running import BatchStatistics
from bigtrain.networks.layers.statistics import batchnorm_layers, has_batchnorm, set_batch_statistics
from bigtrain.training.schema import Recipe


class Discriminator:
    """The judging networks of a game, with the weights of training, not averaged ones.

    Batch normalisation and minibatch standard deviation run over as many images as in training, all of one kind; what
    else differs between training and use (dropout) is off.

    Args:
        game: its networks hold the weights.
        group_images: images that statistics of a batch run over; 1 where no layer compares images.
    """

    def __init__(self, game: Game, group_images: int) -> None:
        self.game, self.group_images = game, group_images

    @classmethod
    def load(cls, game: Game, recipe: Recipe, tensors: Mapping[str, Tensor]) -> "Discriminator":
        """Put a checkpoint's weights into all networks of the game that are not averaged.

        Raises:
            CheckpointError: they do not fit.
        """
        group_images = 1
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for name in game.networks:
            if name in game.averaged:
                continue
            network = load_trained(game, name, tensors, device)
            if has_batchnorm(network):
                set_batch_statistics(network, BatchStatistics(recipe.batchnorm_images, update="never"))
                for layer in batchnorm_layers(network):
                    layer.training = True
                group_images = math.lcm(group_images, recipe.batchnorm_images or 1)
            if has_minibatch_std(network):
                set_minibatch_std(network, BatchStatistics(recipe.minibatch_std_images))
                group_images = math.lcm(group_images, recipe.minibatch_std_images or 1)
        return cls(game, group_images)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Return logits, float32 [L] on the CPU, of the images that make whole groups: those at the end are left out.

        A logit of any shape becomes its mean.
        """
        whole = len(batch) // self.group_images * self.group_images
        if not whole:
            return torch.empty(0)
        networks = self.game.networks
        device = next(next(iter(networks.values())).parameters()).device
        part = Batch(batch.image_NCHW[:whole], batch.label_N[:whole], batch.sample_N[:whole])
        logits: Tensor = self.game.judge(networks, part.on_device(device))
        return logits.float().reshape(whole, -1).mean(1).cpu()
