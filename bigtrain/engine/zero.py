"""ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054) by DeepSpeed: every rank keeps the moments of a part of the weights
(stage 1), and after a backward pass the gradients of that part alone (stage 2).

DeepSpeed flattens a player's parameters, gives each rank one stretch of them, reduces gradients, and gathers the
stretches again after a step. The step itself is made by our optimizer over the stretch, void where it is not wanted, so
nothing waits for the device. Each player is an engine of its own, and its forward pass plays the whole turn; penalties
differentiate through the raw networks within. Stage 1 reduces once a turn, stage 2 in every micro-batch.

Stage 3 partitions the weights themselves, and gives wrong results or fails where a loss holds a gradient.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.utils import safe_get_full_optimizer_state, safe_set_full_optimizer_state
from torch import Tensor

from bigtrain.data.batch import Batch
from bigtrain.draws import Draws
from bigtrain.engine.optimizers import STEP_COUNTER, check_named_state, step_where
from bigtrain.engine.players import Player
from bigtrain.engine.processes.launch import Launch
from bigtrain.games.base import Loss, Turn
from bigtrain.recipe.progress import Progress

MOMENTS = ("exp_avg", "exp_avg_sq")


class Partitioned:
    """One player as a DeepSpeed engine of stage 1 or 2."""

    def __init__(self, player: Player, optimizer: torch.optim.Optimizer, launch: Launch) -> None:
        self.player, self.optimizer = player, optimizer
        self._world = launch.ranks.world
        launch.accelerator.state.select_deepspeed_plugin(player.name)
        with _without_broadcast():
            self._engine, _ = launch.accelerator.prepare(player, optimizer)
        launch.accelerator.deepspeed_engine_wrapped = None  # else it warns of the second player's
        self._zero = self._engine.optimizer
        self._make_moments()

    def reduction(self, is_last: bool) -> AbstractContextManager[object]:
        """Tell DeepSpeed whether the micro-batch is the last one of a turn."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        return nullcontext()

    def play(self, turn: Turn, batch: Batch | None, draws: Draws, progress: Progress) -> Loss:
        """Return the loss of one micro-batch."""
        return Loss(*self._engine(turn, batch, draws, progress))

    def backward(self, value: Tensor) -> None:
        """Add the gradients of one micro-batch."""
        self._engine.backward(value, scale_wrt_gas=False)

    def squared_norm(self) -> Tensor:
        """Return this rank's part of the squared norm, times the number of ranks."""
        squares = [part.double().square().sum() for part in self._zero.averaged_gradients[0]]
        return torch.stack(squares).sum() * self._world

    def step(self, learning_rate: float, wanted: Tensor) -> None:
        """Make the step over this rank's stretch, or none, and gather the weights of all stretches."""
        step_where(self.optimizer, learning_rate, wanted, self._engine.step)

    def state(self) -> dict[str, Tensor]:
        """Gather the moments of all ranks, tensor by tensor, into host memory."""
        (stretch,) = self._zero.single_partition_of_fp32_groups
        counter = self.optimizer.state[stretch][STEP_COUNTER]
        found: dict[str, Tensor] = {}
        for name, parameter in self.player.named_parameters():
            found[f"{name}/{STEP_COUNTER}"] = counter.clone()
            for key in MOMENTS:
                # To the host at once: whole moments on the GPU are what ZeRO is there to save.
                found[f"{name}/{key}"] = safe_get_full_optimizer_state(parameter, key).view(parameter.shape).cpu()
        return found

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Copy weights to the stretches that the steps are made on, and each rank's part of the moments."""
        self._zero.refresh_fp32_params()
        check_named_state(self.player, tensors)
        (stretch,) = self._zero.single_partition_of_fp32_groups
        own = self.optimizer.state[stretch]
        for name, parameter in self.player.named_parameters():
            for key in MOMENTS:
                value = tensors.get(f"{name}/{key}", torch.zeros_like(parameter))  # none before the first step
                safe_set_full_optimizer_state(parameter, value.to(parameter), key)
            own[STEP_COUNTER].copy_(tensors.get(f"{name}/{STEP_COUNTER}", torch.zeros(())))

    def _make_moments(self) -> None:
        """Have the optimizer make its moments, by a step that is void, so that they can be read and loaded at once."""
        (stretch,) = self._zero.single_partition_of_fp32_groups
        stretch.grad = torch.zeros_like(stretch)
        unwanted = torch.zeros((), dtype=torch.bool, device=stretch.device)
        step_where(self.optimizer, 0.0, unwanted, lambda: self._zero._optimizer_step(0))
        stretch.grad = None


@contextmanager
def _without_broadcast() -> Iterator[None]:
    """Leave out DeepSpeed's first broadcast, which cannot send a parameter without axes: ranks draw the same weights
    from the seed."""
    broadcast = DeepSpeedEngine._broadcast_model
    DeepSpeedEngine._broadcast_model = lambda engine: None
    try:
        yield
    finally:
        DeepSpeedEngine._broadcast_model = broadcast
