"""Memory of one GPU: what lives through a whole run, and the turn that needs most on top."""

from dataclasses import dataclass

from bigtrain.planning.measure import Measured, TurnCost
from bigtrain.recipe.registry import Registry

FLOAT32_BYTES = 4
ADAM_MOMENTS = 2
GIB = 2**30

# What no tensor shows, and is assumed, not measured: CUDA context, NCCL's and cuDNN's buffers; and, as a share of
# activations, copies that convolutions make inside and what the allocator cannot use.
RESERVE_BYTES = 2 * GIB
RESERVE_SHARE = 0.2

SHARDINGS = Registry("engine")


@dataclass(frozen=True)
class Sharding:
    """What an engine keeps on every rank, and what it deals out over them."""

    deals_optimizer: bool = False
    """Adam's moments are divided by the number of processes (ZeRO-1), beside a copy of as many weights."""
    deals_gradients: bool = False
    """Gradients are too (ZeRO-2)."""
    keeps_gradients: bool = False
    """Gradients of all players stay allocated, as DDP's buckets; else only those of the player whose turn it is."""


SHARDINGS.add("plain")(Sharding())
SHARDINGS.add("ddp")(Sharding(keeps_gradients=True))
SHARDINGS.add("zero1")(Sharding(deals_optimizer=True))
SHARDINGS.add("zero2")(Sharding(deals_optimizer=True, deals_gradients=True))


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU while the turn that needs most is played."""

    weights: int
    """Parameters and buffers of all networks, float32."""
    gradients: int
    optimizer: int
    """Adam's two moments, and with ZeRO the copy of this rank's weights that it steps."""
    averages: int
    activations: int
    """What is alive in that turn besides the rows above, at its peak."""
    turn: str

    @property
    def tensors(self) -> int:
        """Sum of all rows."""
        return self.weights + self.gradients + self.optimizer + self.averages + self.activations

    @property
    def with_reserve(self) -> int:
        """The sum, and room for what no tensor shows."""
        return self.tensors + RESERVE_BYTES + round(RESERVE_SHARE * self.activations)


def memory(measured: Measured, engine: str, world: int, num_averages: int) -> Memory:
    """Return the memory of one of `world` GPUs under an engine.

    Raises:
        RecipeError: the engine is not known.
    """
    sharding: Sharding = SHARDINGS.get(engine)
    parameters = sum(measured.parameters(player) for player in measured.players)
    numbers = ADAM_MOMENTS * parameters
    if sharding.deals_optimizer:
        numbers = -(-(ADAM_MOMENTS + 1) * parameters // world)
    worst = max(measured.turns, key=lambda cost: cost.peak_bytes + _gradients(measured, sharding, world, cost))
    return Memory(
        weights=sum(size.bytes for size in measured.networks.values()),
        gradients=_gradients(measured, sharding, world, worst),
        optimizer=FLOAT32_BYTES * numbers,
        averages=num_averages * sum(measured.networks[name].bytes for name in measured.averaged),
        activations=worst.peak_bytes,
        turn=worst.turn.name,
    )


def _gradients(measured: Measured, sharding: Sharding, world: int, cost: TurnCost) -> int:
    players = list(measured.players) if sharding.keeps_gradients else [cost.turn.player]
    numbers = sum(measured.parameters(player) for player in players)
    return FLOAT32_BYTES * (-(-numbers // world) if sharding.deals_gradients else numbers)
