"""What each kind of turn of a recipe costs, found by playing it on tensors without data: no GPU, no shards, no memory.

A turn is played as the engine plays it: the player's networks in train mode, the others frozen, autocast but for turns
of full precision, statistics groups as the layout makes them (a sum over ranks is left out, which changes no size).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bigtrain.data.batch import Batch
from bigtrain.draws import Draws
from bigtrain.engine.players import Player
from bigtrain.engine.precision import autocast
from bigtrain.games.base import DataFacts, Game, Turn
from bigtrain.networks.layers.minibatch_std import set_minibatch_std
from bigtrain.networks.layers.running import BatchStatistics
from bigtrain.networks.layers.statistics import set_batch_statistics
from bigtrain.planning.ledger import Ledger
from bigtrain.planning.recipe import Planned
from bigtrain.recipe.progress import Progress

COUNTED_STEPS = 4_800  # a multiple of 16 and of most other periods of lazy penalties
# Fake tensors say that they are on a CPU, because autocast knows no device without data. The dtypes are a GPU's but for
# a few pointwise operators.
DEVICE = torch.device("cpu")


@dataclass(frozen=True)
class NetworkSize:
    """How large a network is."""

    parameters: int
    """Numbers that its player's optimizer changes."""
    bytes: int
    """Parameters and buffers, as they are stored."""


@dataclass(frozen=True)
class TurnCost:
    """One micro-batch of one kind of turn."""

    turn: Turn
    per_step: float
    """How often a step plays it, on average: 1/16 for a penalty that is due in every 16th step."""
    flop: int
    """Operations of matrix products and convolutions, forward and backward, two for a multiply-add."""
    reduced_flop: int
    """Those of them in bf16 or fp16; the others are in float32."""
    peak_bytes: int
    """Most bytes alive at once besides parameters, buffers and the gradients of parameters."""


@dataclass(frozen=True)
class Measured:
    """What there is to know of a recipe's networks and turns at one micro-batch."""

    micro_images: int
    networks: dict[str, NetworkSize]
    players: dict[str, tuple[str, ...]]
    averaged: tuple[str, ...]
    turns: tuple[TurnCost, ...]

    def parameters(self, player: str) -> int:
        """Return how many numbers a player's optimizer changes."""
        return sum(self.networks[name].parameters for name in self.players[player])

    @property
    def peak_bytes(self) -> int:
        """Activations of the turn that needs most."""
        return max(cost.peak_bytes for cost in self.turns)


def measure(recipe: Planned, micro_images: int) -> Measured:
    """Return the costs of all turns of a recipe at one micro-batch.

    Raises:
        RecipeError: the networks do not fit the images.
    """
    with FakeTensorMode():
        game: Game = recipe.game.build(blank_facts(recipe))
        prepare(game, recipe, micro_images)
        costs = tuple(
            TurnCost(turn, per_step, *weigh(game, turn, recipe, micro_images))
            for turn, per_step in frequencies(game).items()
        )
    sizes = {name: _size(network) for name, network in game.networks.items()}
    return Measured(micro_images, sizes, dict(game.players), game.averaged, costs)


def blank_facts(recipe: Planned) -> DataFacts:
    """Return what a game may know where the shards are not: classes of equal size, since sizes alone count here."""
    return DataFacts(recipe.image.spec, (1,) * recipe.image.num_classes or None, recipe.batch_images)


def frequencies(game: Game) -> dict[Turn, float]:
    """Return every kind of turn with how often a step plays it, over the first 4,800 steps."""
    counts = Counter(turn for steps in range(COUNTED_STEPS) for turn in game.turns(Progress(steps=steps)))
    return {turn: count / COUNTED_STEPS for turn, count in counts.items()}


def weigh(game: Game, turn: Turn, recipe: Planned, micro_images: int) -> tuple[int, int, int]:
    """Play one micro-batch of a turn and return its FLOP, those in fewer bits, and the peak of its bytes.

    The player's gradients are there from the start, as in every micro-batch but the first, and are not counted.
    """
    player = Player(turn.player, game)
    player.take_the_floor()
    for parameter in player.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with Ledger(owned(game)) as ledger:
        play(player, turn, recipe, micro_images)
    for parameter in player.parameters():
        parameter.grad = None
    return ledger.flop, ledger.reduced_flop, ledger.peak_bytes


def play(player: Player, turn: Turn, recipe: Planned, micro_images: int) -> None:
    """Play one micro-batch of a turn, forward and backward, on blank images."""
    draws = Draws(recipe.seed, 0, 0, 0, torch.arange(micro_images, device=DEVICE))
    batch = None if turn.reads == "none" else _batch(recipe, micro_images)
    with autocast("fp32" if turn.full_precision else recipe.precision, DEVICE):
        loss = player.game.loss(turn, player.game.networks, batch, draws, Progress())
    loss.value.backward()


def _alone(tensor: Tensor) -> Tensor:
    return tensor.clone()


def prepare(game: Game, recipe: Planned, micro_images: int, reduce: Callable[[Tensor], Tensor] = _alone) -> None:
    """Put the networks into train mode, with the statistics groups of the recipe.

    Args:
        game: its networks are changed.
        recipe: says how many images a group has.
        micro_images: of one rank.
        reduce: stands for the sum over the ranks of a group.
    """
    for network in game.networks.values():
        network.train()
        set_batch_statistics(network, _statistics(recipe.batchnorm_images, micro_images, reduce))
        set_minibatch_std(network, _statistics(recipe.minibatch_std_images, micro_images, reduce))


def _statistics(group_images: int | None, micro_images: int, reduce: Callable[[Tensor], Tensor]) -> BatchStatistics:
    """Return the policy of layers that compare images; a group over several ranks is as large here as one rank's
    part."""
    if group_images is None or group_images <= micro_images:
        return BatchStatistics(group_images, update="never")
    return BatchStatistics(group_images, group_images // micro_images, reduce, "never")


def _batch(recipe: Planned, micro_images: int) -> Batch:
    size = (micro_images, recipe.image.channels, *recipe.image.spec.size)
    number_N = torch.zeros(micro_images, dtype=torch.int64)
    return Batch(torch.zeros(size, dtype=torch.uint8), number_N, number_N).on_device(DEVICE)


def owned(game: Game) -> Iterator[Tensor]:
    """Yield everything that is there between turns."""
    for module in (*game.networks.values(), game.state):
        yield from module.buffers()
        for parameter in module.parameters():
            yield parameter
            if parameter.grad is not None:
                yield parameter.grad


def _size(network: nn.Module) -> NetworkSize:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    tensors = (*network.parameters(), *network.buffers())
    return NetworkSize(parameters, sum(tensor.numel() * tensor.element_size() for tensor in tensors))
