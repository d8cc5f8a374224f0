"""Optimizers of players: Adam (Kingma and Ba 2015, arXiv:1412.6980) with a scheduled learning rate."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

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

    def build(self, player: nn.Module, main_share: float = 1.0) -> torch.optim.Optimizer:
        """Return the optimizer over the player's parameters.

        Args:
            player: owns them.
            main_share: part c of the player's turns that has the main loss. With lazy penalties, k main turns are k / c
                steps: the learning rate is multiplied by c and the decays raised to the power c, so that k main turns
                move as far as without (Karras et al. 2020, arXiv:1912.04958, appendix B).
        """
        beta1, beta2 = (beta**main_share for beta in self.betas)
        # Fused: it can be told on the device to skip a step, and is one pass over memory.
        return torch.optim.Adam(
            player.parameters(), lr=self.learning_rate_at(0, main_share), betas=(beta1, beta2), eps=self.eps, fused=True
        )

    def learning_rate_at(self, images_seen: int, main_share: float = 1.0) -> float:
        """Return the step size of one of the player's turns."""
        return self.learning_rate.at(images_seen) * main_share


def step_where(
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    wanted: Tensor,
    make_step: Callable[[], object] | None = None,
) -> None:
    """Make one step with `learning_rate`, or none at all where the bool scalar `wanted` is False.

    The device decides; the host does not wait for it. Step counters do not count a step that was not made.

    Args:
        optimizer: a fused one.
        learning_rate: of all its parameters.
        wanted: on the optimizer's device.
        make_step: has the optimizer make its step somewhere within; None: it is asked directly.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    # What torch's GradScaler hands to fused optimizers.
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.found_inf = (~wanted).float()  # type: ignore[attr-defined]
    (make_step or optimizer.step)()


def named_state(player: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's tensors by parameter name, such as "own.generator.linear.weight/exp_avg"."""
    return {
        f"{name}/{key}": value
        for name, parameter in player.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


STEP_COUNTER = "step"  # a float32 scalar on the parameter's device, whatever the parameter's dtype


def load_named_state(player: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `named_state` returned.

    Raises:
        KeyError, RuntimeError: as `check_named_state`.
    """
    check_named_state(player, tensors)
    parameters = dict(player.named_parameters())
    optimizer.state.clear()  # a run that goes back to before its first step has none
    for name, value in tensors.items():
        owner, _, key = name.rpartition("/")
        parameter = parameters[owner]
        dtype = value.dtype if key == STEP_COUNTER else parameter.dtype
        optimizer.state[parameter][key] = value.clone().to(parameter.device, dtype)


def check_named_state(player: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Return if `tensors` hold state of every parameter in its shape, or nothing at all (no step was made).

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
    missing = parameters.keys() - {name.rpartition("/")[0] for name in tensors}
    if tensors and missing:
        raise KeyError(f"no saved optimizer state of {sorted(missing)}")
