"""How often gradients travel: once a turn under DDP and ZeRO-1, whatever the accumulation; under ZeRO-2 every time."""

import importlib.util
from collections import Counter
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from bigtrain.engine.engine import Engine, EngineSettings
from bigtrain.engine.optimizers import AdamSettings
from bigtrain.engine.processes.launch import start
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.progress import Progress
from tests.engine.test_layouts import BATCH_IMAGES, images_at
from tests.engine.test_penalty_turns import STD_IMAGES, stylegan2_game
from tests.rank_pool import run_ranks

ACCUMULATION = 2


def engine_of(ranks: Ranks, name: str) -> Engine:
    launch = start(name, 1, ("discriminator", "generator"))
    layout = Layout(ranks.rank, ranks.world, BATCH_IMAGES // ranks.world // ACCUMULATION, BATCH_IMAGES)
    optimizers = {player: AdamSettings() for player in ("generator", "discriminator")}
    return Engine(stylegan2_game(), EngineSettings(0, layout, optimizers, minibatch_std_images=STD_IMAGES), launch)


def play_step(engine: Engine, seen: Counter[str]) -> dict[str, Counter[str]]:
    """Play the turns of the first step; return by turn what `seen` counted meanwhile."""
    layout, found = engine.layout, {}
    batches = tuple(images_at(0, layout, micro) for micro in range(layout.accumulation))
    for number, turn in enumerate(engine.game.turns(Progress())):
        seen.clear()
        engine.play(turn, number, batches if turn.reads != "none" else (None,) * layout.accumulation, Progress())
        found[turn.name] = Counter(seen)
    return found


def buckets_by_turn(ranks: Ranks) -> tuple[dict[str, Counter[str]], dict[str, int]]:
    """Count what DDP hands to its communication hook: by bucket, and elements in all."""
    engine, seen = engine_of(ranks, "ddp"), Counter[str]()

    def reduce(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        seen[f"bucket {bucket.index()}"] += 1
        seen["elements"] += bucket.buffer().numel()
        return dist.all_reduce(bucket.buffer() / ranks.world, async_op=True).get_future().then(_only)

    for wrapped in engine.wrapped.values():
        assert wrapped.module.gradient_as_bucket_view
        wrapped.module.register_comm_hook(None, reduce)
    return play_step(engine, seen), sizes(engine)


def _only(future: Any) -> Tensor:
    return future.value()[0]


def sizes(engine: Engine) -> dict[str, int]:
    return {name: sum(p.numel() for p in player.parameters()) for name, player in engine.players.items()}


def test_ddp_reduces_each_bucket_once_a_turn() -> None:
    for turns, sizes_of_players in run_ranks(2, buckets_by_turn):
        assert set(turns) == {"discriminator/main", "discriminator/r1", "generator/main", "generator/path_length"}
        for name, seen in turns.items():
            elements = seen.pop("elements")
            assert seen
            assert set(seen.values()) == {1}, (name, seen)
            assert elements == sizes_of_players[name.partition("/")[0]]


def reduced_by_turn(ranks: Ranks, name: str) -> tuple[dict[str, Counter[str]], dict[str, int]]:
    """Count the elements of large reductions below DeepSpeed; figures and statistics of layers are smaller."""
    engine, seen = engine_of(ranks, name), Counter[str]()
    floor = min(sizes(engine).values()) // 2

    def counted(operation: Any) -> Any:
        def call(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
            if tensor.numel() >= floor:
                seen["elements"] += tensor.numel()
            return operation(tensor, *arguments, **options)

        return call

    for operation in ("all_reduce", "reduce"):
        setattr(torch.distributed, operation, counted(getattr(torch.distributed, operation)))
    return play_step(engine, seen), sizes(engine)


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
@pytest.mark.parametrize(("name", "times"), [("zero1", 1), ("zero2", ACCUMULATION)])
def test_zero_reduces_once_a_turn_or_once_a_micro_batch(name: str, times: int) -> None:
    for turns, sizes_of_players in run_ranks(2, reduced_by_turn, name):
        for turn, seen in turns.items():
            whole = sizes_of_players[turn.partition("/")[0]]
            assert 0.9 * times * whole <= seen["elements"] <= 1.1 * times * whole, (turn, seen, whole)
