"""Non-finite values never enter weights, moments or running statistics, and all ranks react alike."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigtrain.engine.engine import Engine, EngineSettings
from bigtrain.engine.launch import start
from bigtrain.engine.optimizers import AdamSettings, named_state
from bigtrain.engine.ranks import Ranks
from bigtrain.games.base import Turn
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.progress import Progress
from tests.engine.test_layouts import BATCH_IMAGES, images_at, toy_game
from tests.rank_pool import run_ranks


def poison(engine: Engine, where: str) -> None:
    """Make the next turn's loss, or one gradient, NaN on this rank alone."""
    inner = engine.game.loss

    def loss(turn: Turn, networks: Mapping[str, nn.Module], *rest: Any) -> Any:
        found = inner(turn, networks, *rest)
        if where == "loss":
            return dataclasses.replace(found, value=found.value * float("nan"))
        parameter = next(networks[turn.player].parameters())
        bad: Tensor = parameter.flatten()[0] * 0
        bad.register_hook(lambda slope: slope * float("inf"))
        return dataclasses.replace(found, value=found.value + bad)

    engine.game.loss = loss  # type: ignore[method-assign]


def snapshot(engine: Engine) -> dict[str, Tensor]:
    tensors = {f"{n}.{k}": t.clone() for n, net in engine.game.networks.items() for k, t in net.state_dict().items()}
    for name, player in engine.players.items():
        tensors |= {f"{name}/{k}": t.clone() for k, t in named_state(player, engine.optimizers[name]).items()}
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in ("u", "v")}


def poisoned_turn(ranks: Ranks, where: str, player: str, precision: str) -> tuple[bool, list[str], dict[str, Any]]:
    """Play a good step, then a turn that is poisoned on the last rank; return what changed."""
    launch = start("plain" if ranks.world == 1 else "ddp", timeout_minutes=1)
    layout = Layout(ranks.rank, ranks.world, 8, BATCH_IMAGES)
    optimizers = {name: AdamSettings() for name in ("generator", "discriminator")}
    engine = Engine(toy_game(), EngineSettings(0, layout, optimizers, precision, batchnorm_images=8), launch)
    batches = tuple(images_at(0, layout, micro) for micro in range(layout.accumulation))
    for number, turn in enumerate(engine.game.turns(Progress())):
        engine.play(turn, number, batches, Progress())
    before = snapshot(engine)
    if ranks.rank == ranks.world - 1:
        poison(engine, where)
    outcome = engine.play(Turn(player), 0, batches, Progress(steps=1)).read()
    after = snapshot(engine)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    return outcome.stepped, changed, {name: scaler.state_dict() for name, scaler in engine.scalers.items()}


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("player", ["discriminator", "generator"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_poisoned_turn_changes_nothing_on_any_rank(where: str, player: str, world: int) -> None:
    for stepped, changed, _ in run_ranks(world, poisoned_turn, where, player, "fp32"):
        assert not stepped
        assert not changed


def test_an_overflow_halves_the_loss_scale_of_its_player_alone() -> None:
    ((stepped, changed, scalers),) = run_ranks(1, poisoned_turn, "gradient", "discriminator", "fp16")
    assert not stepped
    assert not changed
    assert scalers["discriminator"]["scale"] == scalers["generator"]["scale"] / 2
