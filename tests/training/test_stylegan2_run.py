"""A StyleGAN2 run with everything it has: lazy penalties, mixing, adaptive augmentation; stopped, resumed, sampled."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bigtrain
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import RecipeError
from bigtrain.training import build as builder
from bigtrain.training.run import Run
from bigtrain.training.state import restore
from tests.rank_pool import run_ranks
from tests.training.toy_runs import final_state, play, status_lines, toy_overrides

STOP_AFTER_STEPS = 5
NETWORK = "kind: stylegan2, channel_base: 64, channel_max: 8, mapping_layers: 2"
GAME = (
    "game={kind: noise_to_image, objective: non_saturating, style_mixing: 0.5, "
    f"generator: {{{NETWORK}, latent_dim: 6, style_dim: 6}}, discriminator: {{{NETWORK}}}, "
    "penalties: {r1: {gamma: 1.0, every: 4}, path_length: {every: 2}}, "
    "augment: {kind: ada, probability: 0.3, every: 3, speed_images: 1000}}"
)


def overrides_of(digits: Path, run_dir: Path) -> list[str]:
    return toy_overrides(digits, run_dir, GAME, "batchnorm_images=null", "minibatch_std_images=4")


def is_same(ours: Path, theirs: Path) -> bool:
    (tensors, record), (expected, expected_record) = final_state(ours), final_state(theirs)
    same = record == expected_record and status_lines(ours) == status_lines(theirs)
    return same and all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def stopped_and_whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run stopped between two moves of the augmentation's strength, and the same run uninterrupted."""
    stopped, whole = (tmp_path_factory.mktemp("stylegan2") / name for name in ("stopped", "whole"))
    run_ranks(1, play, overrides_of(digits, stopped), STOP_AFTER_STEPS)
    run_ranks(1, play, overrides_of(digits, whole))
    return stopped, whole


def reset(tensors: dict[str, Tensor], ending: str) -> None:
    chosen = [tensor for name, tensor in tensors.items() if name.endswith(ending)]
    assert chosen, ending
    for tensor in chosen:
        assert tensor.abs().sum() > 0, ending
        tensor.zero_()


def game_state(run: Run) -> dict[str, Tensor]:
    return dict(run.game.state.state_dict())


FORGOTTEN: dict[str, Callable[[Run], None]] = {
    "mean path length": lambda run: reset(game_state(run), "path_length.mean"),
    "strength of the augmentation": lambda run: reset(game_state(run), "augment.strength"),
    "turns since it was moved": lambda run: reset(game_state(run), "augment.sign_turns"),
    "average of styles": lambda run: reset(dict(run.game.networks["generator"].state_dict()), "average.mean"),
    "constant noise": lambda run: reset(dict(run.game.networks["generator"].state_dict()), "noise_const"),
}


def forgetful(ranks: Ranks, overrides: list[str], item: str | None) -> None:
    """Go on with a run whose restore forgot one item."""

    def restore_all_but_one(run: Run, checkpoint: object) -> None:
        restore(run, checkpoint)  # type: ignore[arg-type]
        with torch.no_grad():
            if item is not None:
                FORGOTTEN[item](run)

    builder.restore = restore_all_but_one  # type: ignore[assignment]
    play(ranks, overrides)


@pytest.mark.parametrize("item", [None, *FORGOTTEN])
def test_a_resumed_run_is_the_same_run_unless_something_is_forgotten(
    digits: Path, tmp_path: Path, stopped_and_whole: tuple[Path, Path], item: str | None
) -> None:
    stopped, whole = stopped_and_whole
    again = tmp_path / "run"
    shutil.copytree(stopped, again)
    run_ranks(1, forgetful, overrides_of(digits, again), item)
    assert is_same(again, whole) == (item is None)


def test_two_ranks_hold_the_same_state_and_count_the_same_turns(digits: Path, tmp_path: Path) -> None:
    first, second = run_ranks(2, play, overrides_of(digits, tmp_path))
    assert first == second
    assert dict(first.turns) == {
        "discriminator/main": 10,
        "discriminator/r1": 3,
        "generator/main": 10,
        "generator/path_length": 5,
    }


def test_the_log_tells_what_penalties_and_augmentation_do(stopped_and_whole: tuple[Path, Path]) -> None:
    lines = status_lines(stopped_and_whole[1])[:-1]  # the last one is of a single step
    assert all({"path_length", "path_length_penalty", "augment_strength"} <= line.keys() for line in lines)
    assert any("r1" in line for line in lines)


def test_truncation_in_style_space_and_ways_between_styles(stopped_and_whole: tuple[Path, Path]) -> None:
    model = bigtrain.load(stopped_and_whole[1])
    labels = [3, 3, 3]
    plain, near, mean = (model.sample(3, labels=labels, truncation=law) for law in ("none", "psi:0.5", "psi:0"))
    assert torch.equal(plain, model.sample(3, labels=labels, truncation="psi:1"))
    assert not torch.equal(plain, near)
    assert torch.equal(mean[0], mean[1])  # all are the image of the mean style
    assert not torch.equal(plain[0], plain[1])
    way = model.interpolate((0, 1), labels=(3, 3), steps=5)
    assert way.shape == (5, 1, 32, 32)
    for end, index in ((way[0], 0), (way[-1], 1)):
        assert (end.int() - plain[index].int()).abs().max() <= 1
    with pytest.raises(RecipeError, match="truncation"):
        model.sample(1, labels=[3], truncation="psi:7")
