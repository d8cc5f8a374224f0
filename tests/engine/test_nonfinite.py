"""Non-finite values never enter weights, moments or running statistics, and all ranks react alike."""

import dataclasses
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigtrain.engine.engine import Engine, EngineSettings
from bigtrain.engine.optimizers import AdamSettings
from bigtrain.engine.processes.launch import start
from bigtrain.engine.ranks import Ranks
from bigtrain.games.base import Turn
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.progress import Progress
from tests.engine.test_layouts import BATCH_IMAGES, images_at, toy_game
from tests.engine.test_penalty_turns import STD_IMAGES, stylegan2_game
from tests.rank_pool import run_ranks

TURNS = ("discriminator/main", "generator/main", "discriminator/r1", "generator/path_length")
VALUES = (float("nan"), float("inf"))
WHOLE = list(product((1, 2), ("biggan", "stylegan2"), ("loss", "gradient", "activation"), VALUES, TURNS))
REDUCED = [
    (1, "biggan", "loss", VALUES[0], TURNS[0]), (2, "biggan", "gradient", VALUES[1], TURNS[0]),
    (2, "biggan", "activation", VALUES[0], TURNS[1]), (2, "stylegan2", "loss", VALUES[1], TURNS[3]),
    (2, "stylegan2", "gradient", VALUES[0], TURNS[2]), (2, "stylegan2", "activation", VALUES[1], TURNS[2]),
    (1, "stylegan2", "activation", VALUES[0], TURNS[3]),
]  # fmt: skip


def poison(engine: Engine, where: str, value: float) -> None:
    """Make the next turn's loss, one gradient or one activation NaN or infinite on this rank alone."""
    inner = engine.game.loss

    def loss(turn: Turn, networks: Mapping[str, nn.Module], *rest: Any) -> Any:
        name = turn.player
        if where == "activation":
            layer = next(m for m in networks[name].modules() if isinstance(m, nn.Module) and not list(m.children()))
            handle = layer.register_forward_hook(lambda module, inputs, output: output * value)
        found = inner(turn, networks, *rest)
        if where == "activation":
            handle.remove()
            return found
        if where == "loss":
            return dataclasses.replace(found, value=found.value * value)
        parameter = next(networks[name].parameters())
        bad: Tensor = parameter.flatten()[0] * 0
        bad.register_hook(lambda slope: slope * value)
        return dataclasses.replace(found, value=found.value + bad)

    engine.game.loss = loss  # type: ignore[method-assign]


def snapshot(engine: Engine) -> dict[str, Tensor]:
    tensors = {f"{n}.{k}": t.clone() for n, net in engine.game.networks.items() for k, t in net.state_dict().items()}
    tensors |= {f"game.{key}": tensor.clone() for key, tensor in engine.game.state.state_dict().items()}
    for name, wrapped in engine.wrapped.items():
        tensors |= {f"{name}/{key}": tensor.clone() for key, tensor in wrapped.state().items()}
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in ("u", "v")}


def build_engine(ranks: Ranks, game: str, precision: str = "fp32", kind: str = "ddp") -> Engine:
    """Return the engine of a toy game, whose first step plays all its turns."""
    launch = start("plain" if ranks.world == 1 else kind, 1, ("discriminator", "generator"))
    layout = Layout(ranks.rank, ranks.world, 8, BATCH_IMAGES)
    optimizers = {name: AdamSettings() for name in ("generator", "discriminator")}
    build, groups = {
        "biggan": (toy_game, {"batchnorm_images": 8}),
        "stylegan2": (stylegan2_game, {"minibatch_std_images": STD_IMAGES}),
    }[game]
    return Engine(build(), EngineSettings(0, layout, optimizers, precision, **groups), launch)


def play_step(engine: Engine) -> tuple[Turn, ...]:
    """Play a good step and return its turns."""
    batches = batches_of(engine)
    turns = engine.game.turns(Progress())
    for number, turn in enumerate(turns):
        played = engine.play(turn, number, batches if turn.reads != "none" else (None,) * len(batches), Progress())
        outcome = played.read()
        assert outcome.stepped or outcome.is_rescaled
    return turns


def batches_of(engine: Engine) -> tuple[Any, ...]:
    return tuple(images_at(0, engine.layout, micro) for micro in range(engine.layout.accumulation))


def poisoned_turn(
    ranks: Ranks, where: str, value: float, name: str, game: str, precision: str = "fp32", kind: str = "ddp"
) -> tuple[bool, list[str], dict[str, Any]]:
    """Play a good step, then a turn that is poisoned on the last rank; return what changed."""
    engine = build_engine(ranks, game, precision, kind)
    (turn,) = [turn for turn in play_step(engine) if turn.name == name]
    before = snapshot(engine)
    if ranks.rank == ranks.world - 1:
        poison(engine, where, value)
    batches = batches_of(engine) if turn.reads != "none" else (None,) * engine.layout.accumulation
    outcome = engine.play(turn, 0, batches, Progress(steps=1)).read()
    after = snapshot(engine)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    return outcome.stepped, changed, {name: scaler.state_dict() for name, scaler in engine.scalers.items()}


def assert_nothing_changes(world: int, game: str, where: str, value: float, name: str) -> None:
    for stepped, changed, _ in run_ranks(world, poisoned_turn, where, value, name, game):
        assert not stepped
        assert not changed


@pytest.mark.parametrize(("world", "game", "where", "value", "name"), REDUCED)
def test_a_poisoned_turn_changes_nothing_on_any_rank(
    world: int, game: str, where: str, value: float, name: str
) -> None:
    assert_nothing_changes(world, game, where, value, name)


@pytest.mark.two_process
@pytest.mark.parametrize(("kind", "where", "name"), [("zero1", "gradient", TURNS[2]), ("zero2", "loss", TURNS[1])])
def test_under_zero_a_poisoned_turn_changes_nothing_on_any_rank(kind: str, where: str, name: str) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'bigtrain[deepspeed]'")
    # On the last rank alone: the other one's stretch of the weights has finite gradients, and must not move either.
    for stepped, changed, _ in run_ranks(2, poisoned_turn, where, VALUES[0], name, "stylegan2", "fp32", kind):
        assert not stepped
        assert not changed


def is_played(game: str, name: str) -> bool:
    return game == "stylegan2" or name.endswith("/main")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "game", "where", "value", "name"),
    [row for row in WHOLE if row not in REDUCED and is_played(row[1], row[4])],
)
def test_the_whole_grid_of_poisoned_turns_changes_nothing(
    world: int, game: str, where: str, value: float, name: str
) -> None:
    assert_nothing_changes(world, game, where, value, name)


def gradients_of_turns(ranks: Ranks) -> dict[str, list[Tensor]]:
    """Return every parameter's gradient as the optimizer gets it, and the weights after, for each turn of a step."""
    engine = build_engine(ranks, "stylegan2")
    found: dict[str, list[Tensor]] = {}
    inner = engine._step

    def step(name: str, images_seen: int, stepped: Tensor) -> None:
        own = list(engine.players[name].parameters())
        gradients = [p.grad.clone() for p in own if p.grad is not None]
        assert len(gradients) == len(own)
        inner(name, images_seen, stepped)
        found[f"{len(found)} {name}"] = gradients + [p.detach().clone() for p in own]

    engine._step = step  # type: ignore[method-assign]
    assert [turn.name for turn in play_step(engine)] == [TURNS[0], TURNS[2], TURNS[1], TURNS[3]]
    return found


@pytest.mark.two_process
def test_gradients_and_weights_are_the_same_bytes_on_all_ranks_after_penalties_alone() -> None:
    first, second = run_ranks(2, gradients_of_turns)
    assert len(first) == 4
    for name, tensors in first.items():
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(tensors, second[name], strict=True)), name
        assert any(tensor.abs().max() > 0 for tensor in tensors)


def test_an_overflow_halves_the_loss_scale_of_its_player_alone() -> None:
    arguments = ("gradient", float("inf"), "discriminator/main", "biggan", "fp16")
    ((stepped, changed, scalers),) = run_ranks(1, poisoned_turn, *arguments)
    assert not stepped
    assert not changed
    assert scalers["discriminator"]["scale"] == scalers["generator"]["scale"] / 2
