"""ZeRO makes the step of one process: weights, averages, state and moments agree, through penalties and accumulation.

DeepSpeed's masters are float32, so Adam gets an eps that does not amplify rounding (1e-3), and agreement is to 1e-5.
"""

from typing import Any

import pytest
import torch

from tests.engine.test_layouts import BATCHNORM_IMAGES, disagreements, toy_game, trained
from tests.engine.test_penalty_turns import STD_IMAGES, stylegan2_game
from tests.rank_pool import run_ranks

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'bigtrain[deepspeed]'")

GAMES = {
    "biggan": {"build": toy_game},
    "stylegan2": {"build": stylegan2_game, "minibatch_std_images": STD_IMAGES},
}
STEPS = {"biggan": 2, "stylegan2": 3}  # BigGAN: in step 3 rounding moves a moment across a kink, under DDP alike


@pytest.mark.parametrize("micro_images", [8, 4])
@pytest.mark.parametrize("engine", ["zero1", "zero2"])
@pytest.mark.parametrize("game", GAMES)
def test_steps_agree_with_one_process(game: str, engine: str, micro_images: int) -> None:
    options: dict[str, Any] = {**GAMES[game], "eps": 1e-3}
    (whole,) = run_ranks(1, trained, 16, STEPS[game], torch.float32, options)
    dealt = run_ranks(2, trained, micro_images, STEPS[game], torch.float32, {**options, "engine": engine})
    for rank in dealt:
        worst = max(disagreements(rank, whole).items(), key=lambda item: item[1])
        assert worst[1] <= 1e-5, worst
    assert BATCHNORM_IMAGES == 8
    assert all(torch.equal(dealt[0][name], dealt[1][name]) for name in dealt[0])
