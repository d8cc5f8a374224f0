"""How one player's turns run over the ranks: forward pass, backward pass, reduction, step, and its optimizer's state.

An engine of the recipe is one kind of `Wrapped`. All of them make the same step from the same global batch; they differ
in where gradients and moments live.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from bigtrain.data.batch import Batch
from bigtrain.draws import Draws
from bigtrain.engine.optimizers import load_named_state, named_state, step_where
from bigtrain.engine.players import Player
from bigtrain.engine.processes.launch import Launch
from bigtrain.games.base import Loss, Turn
from bigtrain.recipe.progress import Progress


class Wrapped(Protocol):
    """One player as its engine plays it; every rank calls every method, in the same order."""

    optimizer: torch.optim.Optimizer

    def reduction(self, is_last: bool) -> AbstractContextManager[object]:
        """Return the context of one micro-batch, forward and backward: after the last of a turn, gradients are means
        over the ranks."""
        ...

    def play(self, turn: Turn, batch: Batch | None, draws: Draws, progress: Progress) -> Loss:
        """Return the loss of one micro-batch."""
        ...

    def backward(self, value: Tensor) -> None:
        """Add the gradients of one micro-batch."""
        ...

    def squared_norm(self) -> Tensor:
        """Return a float64 scalar whose mean over ranks is the squared norm of the turn's gradient."""
        ...

    def step(self, learning_rate: float, wanted: Tensor) -> None:
        """Make the optimizer's step, or none where the bool scalar `wanted` is False, and drop the gradients."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer's whole state by parameter name, the same on every rank and under every engine."""
        ...

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state` returned, under any engine, after the networks' parameters were put back.

        Raises:
            KeyError: state is missing, or of a parameter that is not there.
            RuntimeError: state has another shape than its parameter.
        """
        ...


class Replicated:
    """Every rank holds all gradients and moments: one process alone, or DistributedDataParallel.

    DDP reduces during the backward pass of a turn's last micro-batch, and only there.
    """

    def __init__(
        self, player: Player, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, launch: Launch
    ) -> None:
        self.player, self.optimizer, self.scaler = player, optimizer, scaler
        self._accelerator = launch.accelerator
        if launch.ranks.world > 1:
            keep_gradient_strides(player)
        self.module = launch.accelerator.prepare_model(player)

    def reduction(self, is_last: bool) -> AbstractContextManager[object]:
        """Return the context of one micro-batch."""
        return nullcontext() if is_last else self._accelerator.no_sync(self.module)

    def play(self, turn: Turn, batch: Batch | None, draws: Draws, progress: Progress) -> Loss:
        """Return the loss of one micro-batch."""
        return Loss(*self.module(turn, batch, draws, progress))

    def backward(self, value: Tensor) -> None:
        """Add the gradients of one micro-batch."""
        self.scaler.scale(value).backward()

    def squared_norm(self) -> Tensor:
        """Unscale gradients, give zeros to parameters without one, and return the squared norm of all."""
        self.scaler.unscale_(self.optimizer)
        parameters = list(self.player.parameters())
        for parameter in parameters:
            if parameter.grad is None:  # so that Adam's moments decay alike under every engine
                parameter.grad = torch.zeros_like(parameter)
        norm: Tensor = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        return norm.detach().double().square()

    def step(self, learning_rate: float, wanted: Tensor) -> None:
        """Make the step, or none."""
        step_where(self.optimizer, learning_rate, wanted)  # not scaler.step: finite or not is agreed across ranks
        if self.scaler.is_enabled():
            self.scaler.update()  # backs off where unscaling met a non-finite gradient, which every rank has met alike
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return the moments, which are not copied."""
        return named_state(self.player, self.optimizer)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back moments."""
        load_named_state(self.player, self.optimizer, tensors)


def keep_gradient_strides(player: torch.nn.Module) -> None:
    """Have gradients come with their parameters' strides, also along axes of one element, where they mean nothing.

    Of a 1x1 kernel a convolution in channels_last memory returns other strides there, and DDP, whose buckets have the
    parameters', takes it for another layout and warns. Nothing is copied.
    """
    for parameter in player.parameters():
        if 1 in parameter.shape:
            parameter.register_hook(partial(_restrided, strides=parameter.stride()))


def _restrided(slope: Tensor, strides: tuple[int, ...]) -> Tensor:
    long = [axis for axis, size in enumerate(slope.shape) if size > 1]
    is_same = all(slope.stride(axis) == strides[axis] for axis in long)
    return slope.as_strided(slope.shape, strides) if is_same else slope


def wrap(player: Player, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, launch: Launch) -> Wrapped:
    """Return the player under the engine that the processes were started for."""
    if launch.zero_stage:
        from bigtrain.engine.zero import Partitioned  # DeepSpeed takes seconds to import, and need not be installed

        return Partitioned(player, optimizer, launch)
    return Replicated(player, optimizer, scaler, launch)
