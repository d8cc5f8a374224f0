"""How the weights of a new network are drawn."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from bigtrain.networks.layers.spectral import SpectralWeight, advance_power_iterations
from bigtrain.recipe.registry import Registry

NORMAL_STD = 0.02  # DCGAN, Radford et al. 2016, arXiv:1511.06434
Initialiser = Callable[[Tensor], object]
Initialisation = Literal["orthogonal", "normal02"]  # the names that recipes choose from

INITIALISERS = Registry("initialisation")


@INITIALISERS.add("orthogonal")
def orthogonal(weight: Tensor) -> None:
    """Draw a weight whose rows, or columns if those are fewer, are orthonormal (Saxe et al. 2014, arXiv:1312.6120)."""
    nn.init.orthogonal_(weight)


@INITIALISERS.add("normal02")
def normal02(weight: Tensor) -> None:
    """Draw a weight from N(0, 0.02^2)."""
    nn.init.normal_(weight, std=NORMAL_STD)


def initialise_weights(network: nn.Module, name: str) -> None:
    """Draw all convolutions, linear maps and embeddings anew from torch's generator; biases and gains stay as built."""
    initialise: Initialiser = INITIALISERS.get(name)
    for module in network.modules():
        if isinstance(module, (SpectralWeight, nn.Embedding)) and not module.weight.is_meta:
            with torch.no_grad():
                initialise(module.weight)
    advance_power_iterations(network)
