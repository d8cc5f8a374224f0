"""ZeRO makes the step of one process: weights, averages, state and moments agree, through penalties and accumulation.

DeepSpeed's masters are float32, so what amplifies rounding is left out: Adam's eps is 1e-3, BigGAN's objective has no
kink as the hinge has, and what starts at 0, but for gains of attention, starts at random values, else it holds a few
steps' sums alone and their rounding is large beside them. So five steps agree to 1e-5; 5e-6 was seen, under DDP alike.
"""

from typing import Any

import pytest
import torch
from torch import nn

from tests.engine.test_layouts import BATCHNORM_IMAGES, disagreements, toy_game, trained
from tests.engine.test_penalty_turns import STD_IMAGES, stylegan2_game
from tests.rank_pool import run_ranks

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'bigtrain[deepspeed]'")

STEPS = 5


def smooth_biggan() -> Any:
    game = toy_game("non_saturating")
    fill(game.networks["discriminator"])  # the generator's biases are undone by BatchNorm
    return game


def filled_stylegan2() -> Any:
    game = stylegan2_game()
    for network in game.networks.values():
        fill(network)
    return game


def fill(network: nn.Module) -> None:
    """Give parameters that start at 0 other values."""
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not parameter.any() and "gamma" not in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=chance))


GAMES = {
    "biggan": {"build": smooth_biggan},
    "stylegan2": {"build": filled_stylegan2, "minibatch_std_images": STD_IMAGES},
}


@pytest.mark.parametrize("micro_images", [8, 4])
@pytest.mark.parametrize("engine", ["zero1", "zero2"])
@pytest.mark.parametrize("game", GAMES)
def test_steps_agree_with_one_process(game: str, engine: str, micro_images: int) -> None:
    options: dict[str, Any] = {**GAMES[game], "eps": 1e-3}
    (whole,) = run_ranks(1, trained, 16, STEPS, torch.float32, options)
    dealt = run_ranks(2, trained, micro_images, STEPS, torch.float32, {**options, "engine": engine})
    for rank in dealt:
        worst = max(disagreements(rank, whole).items(), key=lambda item: item[1])
        assert worst[1] <= 1e-5, worst
    assert BATCHNORM_IMAGES == 8
    assert all(torch.equal(dealt[0][name], dealt[1][name]) for name in dealt[0])
