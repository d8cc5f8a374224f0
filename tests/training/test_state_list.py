"""Every item of a checkpoint is needed: put back all but one, and the run is another run.

This shows that the comparison of `test_resume.py` would see a forgotten item, and that no item is dead weight.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigtrain.engine.ranks import Ranks
from bigtrain.training import build as builder
from bigtrain.training.run import Run
from bigtrain.training.state import restore
from tests.rank_pool import run_ranks
from tests.training.toy_runs import final_state, play, status_lines, toy_overrides

STOP_AFTER_STEPS = 5


def reset(tensors: dict[str, Tensor], *endings: str) -> None:
    """Mix up the tensors whose names end so: their numbers one place on, counters to 0."""
    chosen = [tensor for name, tensor in tensors.items() if name.endswith(endings)]
    assert chosen, endings
    for tensor in chosen:
        tensor.copy_(tensor.roll(1) if tensor.ndim else torch.zeros_like(tensor))  # roll without axes rolls all numbers


def network(run: Run, name: str) -> dict[str, Tensor]:
    return dict(run.game.networks[name].state_dict())


def moments(run: Run, player: str) -> dict[str, Tensor]:
    optimizer = run.engine.optimizers[player]
    return {f"{i}/{key}": t for i, state in enumerate(optimizer.state.values()) for key, t in state.items()}


def forget_progress(run: Run, **changes: int) -> None:
    run.progress = replace(run.progress, **changes)


def forget_health(run: Run, part: str, **changes: Any) -> None:
    record = run.watch.record()
    run.watch.load_record({**record, part: {**record[part], **changes}})


FORGOTTEN: dict[str, Callable[[Run], None]] = {
    "generator's weights": lambda run: reset(network(run, "generator"), "linear.weight"),
    "discriminator's weights": lambda run: reset(network(run, "discriminator"), "linear.weight"),
    "generator's spectral vectors": lambda run: reset(network(run, "generator"), ".u"),
    "discriminator's spectral vectors": lambda run: reset(network(run, "discriminator"), ".u"),
    "running means": lambda run: reset(network(run, "generator"), "running_mean"),
    "running variances": lambda run: reset(network(run, "generator"), "running_var"),
    "generator's first moments": lambda run: reset(moments(run, "generator"), "exp_avg"),
    "generator's second moments": lambda run: reset(moments(run, "generator"), "exp_avg_sq"),
    "discriminator's second moments": lambda run: reset(moments(run, "discriminator"), "exp_avg_sq"),
    "step counts of Adam": lambda run: reset(moments(run, "generator"), "step"),
    "averaged weights": lambda run: reset(run.averages.state(), "linear.weight"),
    "averaged statistics": lambda run: reset(run.averages.state(), "running_mean"),
    "steps": lambda run: forget_progress(run, steps=run.progress.steps - 1),
    "images seen": lambda run: forget_progress(run, images_seen=0),
    "position of the data": lambda run: forget_progress(run, position=0),
    "salt": lambda run: forget_progress(run, salt=1),
    "counts of turns": lambda run: setattr(run, "progress", replace(run.progress, turns={})),
    "means of the log's period": lambda run: run.means.load_record({"sums": {}, "counts": {}}),
    "skipped turns": lambda run: forget_health(run, "skips", in_a_row={"generator/other": 1}),
    "recent figures of the monitors": lambda run: forget_health(run, "monitors", recent={}),
    "figures that are bad": lambda run: forget_health(run, "monitors", bad={"evaluation/other": 1}),
    "up to where the run is good": lambda run: forget_health(run, "healthy_images", evaluation=16),
}


def forgetful(ranks: Ranks, overrides: list[str], item: str) -> None:
    """Go on with a run whose restore forgot one item."""

    def restore_all_but_one(run: Run, checkpoint: object) -> None:
        restore(run, checkpoint)  # type: ignore[arg-type]
        with torch.no_grad():
            FORGOTTEN[item](run)

    builder.restore = restore_all_but_one  # type: ignore[assignment]
    play(ranks, overrides)


@pytest.fixture(scope="module")
def stopped_and_whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A toy run stopped in the middle of a period, with first moments in use, and the same run uninterrupted."""
    stopped, whole = (tmp_path_factory.mktemp("state") / name for name in ("stopped", "whole"))
    run_ranks(1, play, overrides_of(digits, stopped), STOP_AFTER_STEPS)
    run_ranks(1, play, overrides_of(digits, whole))
    return stopped, whole


def overrides_of(digits: Path, run_dir: Path) -> list[str]:
    adam = "{kind: adam, learning_rate: {cosine: [2e-4, 1e-4], over: 160}, betas: [0.5, 0.999]}"
    return toy_overrides(digits, run_dir, f"optimizers={{generator: {adam}, discriminator: {adam}}}")


@pytest.mark.parametrize("item", [None, *FORGOTTEN])
def test_a_forgotten_item_makes_another_run(
    digits: Path, tmp_path: Path, stopped_and_whole: tuple[Path, Path], item: str | None
) -> None:
    import shutil

    stopped, whole = stopped_and_whole
    again = tmp_path / "run"
    shutil.copytree(stopped, again)
    if item is None:  # nothing is forgotten: the comparison itself is sound
        run_ranks(1, play, overrides_of(digits, again))
    else:
        run_ranks(1, forgetful, overrides_of(digits, again), item)
    (tensors, record), (expected, expected_record) = final_state(again), final_state(whole)
    same = record == expected_record and status_lines(again) == status_lines(whole)
    same = same and all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert same == (item is None)
