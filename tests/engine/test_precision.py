"""bf16 computes the same training: its losses follow those of float32 from the same weights, images and draws."""

from typing import Any

import pytest
import torch

from bigtrain.engine.engine import Engine, EngineSettings
from bigtrain.engine.optimizers import AdamSettings
from bigtrain.engine.processes.launch import start
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.progress import Progress
from tests.engine.test_layouts import BATCH_IMAGES, BATCHNORM_IMAGES, images_at, toy_game
from tests.engine.test_penalty_turns import STD_IMAGES, dtypes_of_convolutions, engine_of, stylegan2_game
from tests.rank_pool import run_ranks

STEPS = 8


def losses(ranks: Ranks, build: Any, precision: str) -> list[dict[str, float]]:
    """Return the losses of each step."""
    game, layout = build(), Layout(0, 1, BATCH_IMAGES, BATCH_IMAGES)
    optimizers = {name: AdamSettings(eps=1e-3) for name in game.players}
    groups = {"batchnorm_images": BATCHNORM_IMAGES, "minibatch_std_images": STD_IMAGES}
    engine = Engine(game, EngineSettings(0, layout, optimizers, precision, **groups), start("plain", 1))
    found = []
    for step in range(STEPS):
        progress, figures = Progress(steps=step, images_seen=step * BATCH_IMAGES), {}
        batch = images_at(step * BATCH_IMAGES, layout, 0)
        for number, turn in enumerate(game.turns(progress)):
            outcome = engine.play(turn, number, (None if turn.reads == "none" else batch,), progress).read()
            assert outcome.stepped
            figures |= {name: value for name, value in outcome.figures.items() if name.startswith("loss_")}
        found.append(figures)
    return found


@pytest.mark.parametrize("build", [toy_game, stylegan2_game])
def test_bf16_losses_track_float32(build: Any) -> None:
    (exact,), (rounded,) = run_ranks(1, losses, build, "fp32"), run_ranks(1, losses, build, "bf16")
    for name in ("loss_discriminator", "loss_generator"):
        assert any(ours[name] != theirs[name] for ours, theirs in zip(rounded, exact, strict=True))
        for ours, theirs in zip(rounded, exact, strict=True):
            assert ours[name] == pytest.approx(theirs[name], abs=0.1), (name, rounded, exact)


def convolutions_within(ranks: Ranks) -> set[torch.dtype]:
    """Play a player's turn where a wrapper has left autocast, as DeepSpeed's does on a GPU."""
    engine = engine_of(ranks, toy_game, precision="bf16")
    batch = images_at(0, engine.layout, 0)
    turn = engine.game.turns(Progress())[0]
    draws = engine.draws(0, 0, Progress())
    with torch.autocast("cpu", enabled=False), dtypes_of_convolutions() as seen:
        engine.players[turn.player](turn, engine._on_device(batch, draws), draws, Progress())
    return seen


def test_a_wrapper_that_leaves_autocast_changes_nothing() -> None:
    (seen,) = run_ranks(1, convolutions_within)
    assert torch.bfloat16 in seen
