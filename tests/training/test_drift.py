"""Ranks that drift apart end the run with status 8 at the next comparison, and nothing of them is saved."""

from pathlib import Path

import pytest
import torch

from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import BigtrainError
from bigtrain.training.hooks.checkpoint import SaveCheckpoint
from bigtrain.training.run import Run
from tests.rank_pool import run_ranks
from tests.training.toy_runs import play, toy_overrides

PERTURBED_AFTER = 5


def perturbed(ranks: Ranks, overrides: list[str], what: str) -> str:
    """Change one number on rank 1 after a step; return how the run ends here, and after how many steps."""
    inner, steps = Run.end_step, []

    def end_step(run: Run) -> None:
        inner(run)
        steps.append(run.progress.steps)
        if run.progress.steps == PERTURBED_AFTER and ranks.rank == 1:
            averages = {key.rpartition(".")[2]: value for key, value in run.averages.state().items()}
            weight = run.game.networks["generator"].linear.bias.data  # type: ignore[union-attr]
            tensor = {"weight": weight, "average": averages["running_var"]}[what]
            tensor.view(-1)[0] += 1e-3

    Run.end_step = end_step  # type: ignore[method-assign]
    try:
        play(ranks, overrides)
    except BigtrainError as error:
        return f"{error.exit_status} after {steps[-1]} steps: {error}"
    return "went on"


@pytest.mark.two_process
@pytest.mark.parametrize(
    ("what", "period", "found_after", "named"),
    [("weight", 16, 5, "network/generator/linear.bias"), ("average", 0, 8, "average/ema-3000/generator/")],
)
def test_one_changed_number_is_found_at_the_next_comparison(
    digits: Path, tmp_path: Path, what: str, period: int, found_after: int, named: str
) -> None:
    overrides = toy_overrides(digits, tmp_path, f"watchdog.check_ranks_every_images={period}")
    first, second = run_ranks(2, perturbed, overrides, what)
    assert first == second
    assert first.startswith(f"8 after {found_after} steps: ")
    assert named in first
    assert "differs between rank 0 and rank 1" in first
    assert [path.name for path in (tmp_path / "checkpoints").glob("0*")] == ["000000000064"]


def poisoned(ranks: Ranks, overrides: list[str]) -> str:
    """Put infinity into a weight of every rank after the first checkpoint, once."""
    inner, done = SaveCheckpoint.run, []

    def run_hook(hook: SaveCheckpoint, run: Run) -> None:
        inner(hook, run)
        if run.saved_images and not done:
            done.append(run.progress.images_seen)
            with torch.no_grad():
                run.engine.optimizers["generator"].state[run.game.networks["generator"].linear.weight]["exp_avg_sq"][
                    0
                ] = float("inf")

    SaveCheckpoint.run = run_hook  # type: ignore[method-assign]
    progress = play(ranks, overrides)
    return f"salt {progress.salt} at {progress.images_seen}"


def test_what_is_not_finite_is_never_saved_and_rolls_the_run_back(digits: Path, tmp_path: Path) -> None:
    (ended,) = run_ranks(1, poisoned, toy_overrides(digits, tmp_path))
    assert ended == "salt 1 at 160"
    from tests.training.toy_runs import final_state

    tensors, _ = final_state(tmp_path)
    assert all(tensor.isfinite().all() for tensor in tensors.values())
