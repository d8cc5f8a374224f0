"""A run's networks as its next turn would find them: with the weights of training, not averaged ones."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bigtrain.games.base import Game
from bigtrain.networks.layers.spectral import advance_power_iterations
from bigtrain.recipe.errors import CheckpointError


def load_trained(game: Game, name: str, tensors: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    """Put a checkpoint's weights into a network of the game, after one power iteration; for use, without gradients.

    Args:
        game: its network of that name holds the weights.
        name: of the network, such as discriminator.
        tensors: of a checkpoint; a snapshot has no weights of training.
        device: where the network is put.

    Raises:
        CheckpointError: they do not fit.
    """
    network = game.networks[name]
    prefix = f"network/{name}/"
    state = {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint's {name} does not fit its own recipe ({error}); copy it again"
        ) from error
    advance_power_iterations(network)
    return network.to(device).eval().requires_grad_(False)
