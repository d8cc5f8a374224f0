"""Optimizers of players: Adam (Kingma and Ba 2015, arXiv:1412.6980) with a scheduled learning rate."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from bigtrain.recipe.registry import Registry
from bigtrain.recipe.schedule import Constant, Schedule
from bigtrain.recipe.settings import Settings

OPTIMIZERS = Registry("optimizer")


@OPTIMIZERS.add("adam")
class AdamSettings(Settings):
    """Settings of one player's Adam. Defaults: BigGAN (Brock et al. 2019, arXiv:1809.11096, appendix C.2)."""

    kind: Literal["adam"] = "adam"
    """Which optimizer."""
    learning_rate: Schedule = Constant(constant=2e-4)
    """Step size; a number or a schedule over images seen."""
    betas: tuple[float, float] = (0.0, 0.999)
    """Decay of the first and second moment."""
    eps: float = Field(1e-6, gt=0)
    """Added to the root of the second moment."""

    def build(self, player: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer over the player's parameters."""
        return torch.optim.Adam(player.parameters(), lr=self.learning_rate.at(0), betas=self.betas, eps=self.eps)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use `learning_rate` in every parameter group from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def named_state(player: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's tensors by parameter name, such as "own.generator.linear.weight/exp_avg"."""
    return {
        f"{name}/{key}": value
        for name, parameter in player.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


STEP_COUNTER = "step"  # torch keeps it on the CPU, in float32, whatever the parameter


def load_named_state(player: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `named_state` returned.

    Raises:
        KeyError: some parameters have saved state and one has none, or state is saved of a parameter that is not there.
        RuntimeError: saved state has another shape than its parameter.
    """
    parameters = dict(player.named_parameters())
    for name, value in tensors.items():
        owner, _, key = name.rpartition("/")
        parameter = parameters[owner]
        if key != STEP_COUNTER and value.shape != parameter.shape:
            raise RuntimeError(f"{name} has shape {tuple(value.shape)}, its parameter {tuple(parameter.shape)}")
        moved = value.clone() if key == STEP_COUNTER else value.clone().to(parameter.device, parameter.dtype)
        optimizer.state[parameter][key] = moved
    missing = [name for name, parameter in parameters.items() if not optimizer.state.get(parameter)]
    if tensors and missing:
        raise KeyError(f"no saved optimizer state of {missing}")
