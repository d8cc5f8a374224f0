"""DDP has nothing to warn of in our steps, and what it says of every game is not heard."""

import os
import warnings
from pathlib import Path

import pytest
import torch

from bigtrain.engine.processes.launch import _without_line
from bigtrain.engine.ranks import Ranks
from bigtrain.engine.wrapping import keep_gradient_strides
from tests.engine.test_nonfinite import build_engine, play_step
from tests.rank_pool import run_ranks


def words_of_steps(ranks: Ranks, game: str, folder: Path) -> tuple[str, list[str]]:
    """Play two steps; return what came to stderr past Python, and Python's warnings."""
    path = folder / f"{game}-{ranks.rank}"
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine = build_engine(ranks, game)
        for _ in range(2):
            play_step(engine)
    return path.read_text(), [str(each.message) for each in caught]


@pytest.mark.two_process
@pytest.mark.parametrize("game", ["biggan", "stylegan2"])
def test_two_ranks_play_without_a_warning(tmp_path: Path, game: str) -> None:
    for written, caught in run_ranks(2, words_of_steps, game, tmp_path):
        assert written == ""
        assert not caught


def test_other_lines_come_through(capfd: pytest.CaptureFixture[str]) -> None:
    with _without_line(b"three"):
        os.write(2, b"one\ntwo, three\n")
        os.write(2, b"four")
    assert capfd.readouterr().err == "one\nfour"


def test_a_gradient_of_another_order_stays_as_it_is() -> None:
    module = torch.nn.ParameterList([torch.zeros(4, 1, 3), torch.zeros(4, 2, 1, 1)])
    keep_gradient_strides(module)
    first, second = module
    (first * torch.arange(12.0).view(3, 1, 4).permute(2, 1, 0)).sum().backward()
    assert torch.equal(first.grad, torch.arange(12.0).view(3, 1, 4).permute(2, 1, 0))
    (second * torch.arange(8.0).view(4, 2, 1, 1).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert second.grad.stride() == second.stride()
    assert torch.equal(second.grad.flatten(), torch.arange(8.0))
