"""Compiled main turns give the gradients of eager ones, beside penalty turns that stay eager."""

import shutil
import sysconfig
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigtrain.engine.engine import Engine, EngineSettings
from bigtrain.engine.optimizers import AdamSettings, named_state
from bigtrain.engine.processes.launch import start
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.progress import Progress
from tests.engine.test_layouts import BATCH_IMAGES, disagreements, images_at, toy_game
from tests.engine.test_penalty_turns import augmented_game
from tests.rank_pool import run_ranks

COMPILE_LIMIT_S = 900.0  # half a minute on an idle machine
GAMES = {"biggan": toy_game, "stylegan2": augmented_game}


def gradients(ranks: Ranks, family: str, backend: str | None) -> tuple[dict[str, Tensor], dict[str, float], list[str]]:
    """Play two steps; return Adam's first moments, which are the gradients, last figures and the turns' names."""
    launch = start("plain", timeout_minutes=10)
    layout = Layout(0, 1, BATCH_IMAGES, BATCH_IMAGES)
    optimizers = {name: AdamSettings(betas=(0.0, 0.99), eps=1e-3) for name in ("generator", "discriminator")}
    game: Any = GAMES[family]()
    settings = EngineSettings(0, layout, optimizers, batchnorm_images=8, minibatch_std_images=8)
    engine, figures, names = Engine(game, settings, launch), {}, []
    if backend is not None:
        game.compile(partial(torch.compile, backend=backend, fullgraph=True, dynamic=False))
    batch = images_at(0, layout, 0)
    for step in range(2):
        for number, turn in enumerate(game.turns(Progress(steps=step))):
            progress = Progress(steps=step, images_seen=step * BATCH_IMAGES)
            played = engine.play(turn, number, (None if turn.reads == "none" else batch,), progress)
            figures |= played.read().figures
            names.append(turn.name)
    moments = {
        f"{name}/{key}": tensor
        for name, player in engine.players.items()
        for key, tensor in named_state(player, engine.optimizers[name]).items()
        if key.endswith("exp_avg")
    }
    return moments, figures, names


def worst_disagreement(family: str, backend: str) -> float:
    ((eager, eager_figures, names),) = run_ranks(1, gradients, family, None)
    ((compiled, figures, _),) = run_ranks(1, gradients, family, backend, hang_limit_s=COMPILE_LIMIT_S)
    if family == "stylegan2":
        assert "discriminator/r1" in names
        assert "generator/path_length" in names
    assert figures == pytest.approx(eager_figures, rel=1e-4, abs=1e-6)
    return max(disagreements(compiled, eager).values())


@pytest.mark.parametrize("family", GAMES)
def test_aot_eager_agrees_with_eager(family: str) -> None:
    assert worst_disagreement(family, "aot_eager") <= 1e-5


def has_cpp_compiler() -> bool:
    """Whether Inductor can build for the CPU: a C++ compiler and Python's headers."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return headers.exists() and any(shutil.which(name) for name in ("g++", "c++", "clang++"))


@pytest.mark.slow
@pytest.mark.skipif(not has_cpp_compiler(), reason="Inductor needs a C++ compiler and Python's headers")
@pytest.mark.parametrize("family", GAMES)
def test_inductor_agrees_with_eager(family: str) -> None:
    assert worst_disagreement(family, "inductor") <= 1e-4
