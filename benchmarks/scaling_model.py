"""How much of a step's time is arithmetic on 8, 64 and 1,024 GPUs, for each shipped recipe: a model, not a measurement.

    python -m benchmarks.scaling_model [--json FILE]

Known: the buckets that DDP makes of each player's parameters (torch's own function, its limits of 1 and 25 MiB), the
FLOP of every turn, after which of them each gradient is there, and how often statistics groups that span ranks are
summed: all counted on tensors without data. Assumed, and printed: rates and latencies of links, and the rate of
arithmetic, which stays the same however few images a GPU gets. Left out: reading data, evaluations, checkpoints,
launches of kernels, contention between jobs, slow ranks.

A message of B bytes over n ranks with latency a and rate b takes, in the alpha-beta model (Thakur, Rabenseifner and
Gropp 2005, doi:10.1177/1094342005051521),

    ring          2 (n - 1) a + 2 (n - 1) / n B / b
    hierarchical  a reduce-scatter and a gather by rings within a node of g ranks, 2 ((g - 1) a1 + (g - 1) / g B / b1),
                  and a tree over m nodes with each rank's B / g, 2 log2(m) a2 + 2 (m - 1) / m B / g / b2
    small         a tree: 2 log2(n) a

`ours` is reduction by buckets, hierarchically, each as soon as its gradients are there and the bucket before is done.
`reference` is one blocking ring over all gradients after the backward pass. Both are arithmetic over step time. Rows
"its batch" have the recipe's own batch (strong scaling), rows "grown batch" the micro-batch of 8 GPUs on any number
(weak scaling; another batch is another run).
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.timing import Row, main
from bigtrain.engine.players import Player
from bigtrain.games.base import Game, Turn
from bigtrain.planning.duration import seconds
from bigtrain.planning.gpus import Speed
from bigtrain.planning.ledger import Ledger
from bigtrain.planning.measure import blank_facts, frequencies, owned, play, prepare
from bigtrain.recipe.load import load_recipe
from bigtrain.recipe.shipped import shipped_recipes
from bigtrain.training.schema import Recipe

WORLDS = (8, 64, 1024)
BUCKET_LIMITS_BYTES = [2**20, 25 * 2**20]  # of the bucket of the first parameters, and of all others: DDP's defaults
SMALL_SUMS = 2  # a turn's figures, and its running statistics
SPEED = Speed("h100")


@dataclass(frozen=True)
class Link:
    """Latency of a message, and rate of one GPU in one direction."""

    latency_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Cluster:
    """Nodes of eight GPUs. Peaks: NVLink 4, 450 GB/s; one InfiniBand NDR port a GPU, 400 Gbit/s. 80% of them, and the
    latencies, are assumed."""

    gpus_per_node: int = 8
    inside: Link = Link(3e-6, 0.8 * 450e9)
    between: Link = Link(10e-6, 0.8 * 50e9)

    def slowest(self, world: int) -> Link:
        """Return the link that a ring over so many GPUs has to pass."""
        return self.inside if world <= self.gpus_per_node else self.between

    def reduce_s(self, size_bytes: float, world: int) -> float:
        """Return the time of a hierarchical reduction."""
        inner = min(world, self.gpus_per_node)
        nodes = world // inner
        within_s = ring_s(size_bytes, inner, self.inside)
        if nodes == 1:
            return within_s
        part_s = 2 * (nodes - 1) / nodes * size_bytes / inner / self.between.bytes_per_s
        return within_s + small_s(nodes, self.between) + part_s


def ring_s(size_bytes: float, world: int, link: Link) -> float:
    """Return the time of a reduction around a ring."""
    return 2 * (world - 1) * (link.latency_s + size_bytes / world / link.bytes_per_s)


def small_s(world: int, link: Link) -> float:
    """Return the time of a reduction of a few numbers by a tree."""
    return 2 * math.log2(world) * link.latency_s


def exposed_s(ready_s: Sequence[float], costs_s: Sequence[float], computed_s: float) -> float:
    """Return how long reductions go on after the arithmetic: they run one after the other, none before it is ready."""
    end_s = 0.0
    for ready, cost in zip(ready_s, costs_s, strict=True):
        end_s = max(end_s, ready) + cost
    return max(0.0, end_s - computed_s)


@dataclass(frozen=True)
class TurnShape:
    """One kind of turn at one micro-batch."""

    turn: Turn
    per_step: float
    flop: int
    buckets: tuple[tuple[int, int], ...]
    """Bytes of each bucket, and the FLOP after which all its gradients are there, in the order of reduction."""
    group_sums: int
    """Sums over statistics groups in a micro-batch, forward and backward."""
    reduced_flop: int = 0


class _CountedSum:
    """Stands for the sum over a group of ranks; its gradient is such a sum again."""

    count = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        outer = self

        class Sum(torch.autograd.Function):
            @staticmethod
            def forward(context: Any, value: Tensor) -> Tensor:
                return value.clone()

            @staticmethod
            def backward(context: Any, gradient: Tensor) -> Tensor:
                return outer(gradient)

        self.count += 1
        result: Tensor = Sum.apply(tensor)
        return result


def buckets_of(parameters: Sequence[Tensor]) -> list[list[int]]:
    """Return which parameters share a bucket, the bucket of the last ones first, as DDP reduces them."""
    indices, _ = dist._compute_bucket_assignment_by_size(list(parameters), BUCKET_LIMITS_BYTES)
    return list(reversed(indices))


@cache
def shapes(name: str, micro_images: int) -> tuple[TurnShape, ...]:
    """Return all turns of a shipped recipe."""
    recipe, summed = load(name), _CountedSum()
    with FakeTensorMode():
        game: Game = recipe.game.build(blank_facts(recipe))
        prepare(game, recipe, micro_images, summed)
        return tuple(
            _shape(game, turn, per_step, recipe, (micro_images, summed)) for turn, per_step in frequencies(game).items()
        )


def _shape(game: Game, turn: Turn, per_step: float, recipe: Recipe, dealt: tuple[int, _CountedSum]) -> TurnShape:
    micro_images, summed = dealt
    player = Player(turn.player, game)
    player.take_the_floor()
    parameters, ready = list(player.parameters()), {}
    ledger = Ledger(owned(game))

    def note(parameter: Tensor) -> None:
        ready[id(parameter)] = ledger.flop

    hooks = [parameter.register_post_accumulate_grad_hook(note) for parameter in parameters]
    before = summed.count
    with ledger:
        play(player, turn, recipe, micro_images)
    for hook in hooks:
        hook.remove()
    for parameter in parameters:
        parameter.grad = None
    # A parameter that the turn does not use is ready from the start, as DDP finds out.
    buckets = tuple(
        (
            sum(parameters[i].numel() * parameters[i].element_size() for i in bucket),
            max(ready.get(id(parameters[i]), 0) for i in bucket),
        )
        for bucket in buckets_of(parameters)
    )
    return TurnShape(turn, per_step, ledger.flop, buckets, summed.count - before, ledger.reduced_flop)


@dataclass(frozen=True)
class Dealt:
    """So many GPUs, and what each of them gets."""

    world: int
    micro_images: int
    accumulation: int


@dataclass(frozen=True)
class Step:
    """Seconds of a step: of arithmetic, and of everything by either way of reduction."""

    computed: float
    ours: float
    flat: float


def step(turns: Sequence[TurnShape], recipe: Recipe, dealt: Dealt, cluster: Cluster) -> Step:
    """Return the time of a step on average over lazy turns."""
    computed = ours = flat = 0.0
    for each in turns:
        rate = each.flop / seconds(each.flop, each.reduced_flop, recipe, SPEED)
        turn_s = dealt.accumulation * each.flop / rate
        before_s = turn_s - each.flop / rate  # gradients are reduced in the last micro-batch
        ready_s = [before_s + flop / rate for _, flop in each.buckets]
        costs_s = [cluster.reduce_s(size, dealt.world) for size, _ in each.buckets]
        link, total = cluster.slowest(dealt.world), sum(size for size, _ in each.buckets)
        sums_s = SMALL_SUMS * small_s(dealt.world, link) + _group_sums_s(each, recipe, dealt, cluster)
        computed += each.per_step * turn_s
        ours += each.per_step * (turn_s + sums_s + exposed_s(ready_s, costs_s, turn_s))
        flat += each.per_step * (turn_s + sums_s + ring_s(total, dealt.world, link))
    return Step(computed, ours, flat)


def _group_sums_s(turn: TurnShape, recipe: Recipe, dealt: Dealt, cluster: Cluster) -> float:
    """Return the time of sums over statistics groups: they block, and are small."""
    largest = max((images for _, images in recipe.dealing.groups), default=1)
    ranks = max(1, largest // dealt.micro_images)
    return turn.group_sums * dealt.accumulation * small_s(ranks, cluster.slowest(ranks))


def load(name: str) -> Recipe:
    """Return a shipped recipe."""
    return load_recipe(f"bigtrain:{name}", [], Recipe)


def layouts(recipe: Recipe) -> Iterator[tuple[str, Dealt]]:
    """Yield the ways of dealing a recipe's work to each number of GPUs."""
    fitting = {world: recipe.dealing.fitting(world) for world in WORLDS}
    grown = next(sizes[0] for world in (8, 4, 2, 1) if (sizes := recipe.dealing.fitting(world)))
    for world, sizes in fitting.items():
        own = Dealt(world, sizes[0], recipe.batch_images // world // sizes[0]) if sizes else None
        if own is not None:
            yield "its batch", own
        if own != Dealt(world, grown, 1):
            yield "grown batch", Dealt(world, grown, 1)


def recipe_rows(name: str, cluster: Cluster) -> Iterator[Row]:
    """Yield a row for each number of GPUs and way of dealing."""
    recipe = load(name)
    for how, dealt in layouts(recipe):
        times = step(shapes(name, dealt.micro_images), recipe, dealt, cluster)
        ours, flat = times.computed / times.ours, times.computed / times.flat
        title = f"{name}: {dealt.world} GPUs x {dealt.micro_images} x {dealt.accumulation}, {how}"
        yield Row(name=title, ours=ours, reference=flat, ratio=ours / flat, unit="of step time")


def assumptions(cluster: Cluster) -> str:
    """Return in words what the rows rest on."""
    inside, between = cluster.inside, cluster.between
    formats = ("bf16", "fp32")
    rates = ", ".join(f"{SPEED.utilisation(each):.0%} of {SPEED.peak(each):g} TFLOP/s in {each}" for each in formats)
    return (
        f"assumed: {rates} ({SPEED.gpu}); nodes of {cluster.gpus_per_node} GPUs; within a node "
        f"{inside.bytes_per_s / 1e9:g} GB/s and {inside.latency_s * 1e6:g} us, between nodes "
        f"{between.bytes_per_s / 1e9:g} GB/s a GPU and {between.latency_s * 1e6:g} us; reduction beside arithmetic "
        "slows neither; gradients in float32\n"
    )


def measure() -> list[Row]:
    """Return all rows."""
    cluster = Cluster()
    sys.stdout.write(assumptions(cluster))
    return [row for name in shipped_recipes() for row in recipe_rows(name, cluster)]


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
