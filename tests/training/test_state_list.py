"""Every item of a checkpoint is needed: put back all but one, and the run is another run.

This shows that the comparison of `test_resume.py` would see a forgotten item, and that no item is dead weight. What
only StyleGAN2 has is forgotten in `test_stylegan2_run.py`. The list in `docs/architecture.md` is the list of both.
"""

import re
import shutil
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
    "discriminator's first moments": lambda run: reset(moments(run, "discriminator"), "exp_avg"),
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
    "averages of logits": lambda run: reset(dict(run.game.state.state_dict()), "mean_real"),
    "skipped turns": lambda run: forget_health(run, "skips", in_a_row={"generator/other": 1}),
    "recent figures of the monitors": lambda run: forget_health(run, "monitors", recent={}),
    "figures that are bad": lambda run: forget_health(run, "monitors", bad={"evaluation/other": 1}),
    "damaged samples": lambda run: run.damage.load_record({"replaced": 1, "recent": [[0, "shard-000000.tar"]]}),
    "up to where the run is good": lambda run: forget_health(run, "healthy_images", evaluation=16),
}

NEW_SCALER = {
    "scale": 2.0**16, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0,
}  # fmt: skip
FORGOTTEN_FP16: dict[str, Callable[[Run], None]] = {
    "generator's loss scale": lambda run: run.engine.scalers["generator"].load_state_dict(NEW_SCALER),
    "discriminator's loss scale": lambda run: run.engine.scalers["discriminator"].load_state_dict(NEW_SCALER),
}
LENGTH_OF_LOG = "length of the log"


def forgetful(ranks: Ranks, overrides: list[str], item: str) -> None:
    """Go on with a run whose restore forgot one item."""

    def restore_all_but_one(run: Run, checkpoint: object) -> None:
        restore(run, checkpoint)  # type: ignore[arg-type]
        with torch.no_grad():
            (FORGOTTEN | FORGOTTEN_FP16)[item](run)

    builder.restore = restore_all_but_one  # type: ignore[assignment]
    play(ranks, overrides)


@pytest.fixture(scope="module")
def stopped_and_whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A toy run stopped in the middle of a period, with first moments in use, and the same run uninterrupted."""
    stopped, whole = (tmp_path_factory.mktemp("state") / name for name in ("stopped", "whole"))
    run_ranks(1, play, overrides_of(digits, stopped), STOP_AFTER_STEPS)
    run_ranks(1, play, overrides_of(digits, whole))
    return stopped, whole


def overrides_of(digits: Path, run_dir: Path, *more: str) -> list[str]:
    adam = "{kind: adam, learning_rate: {cosine: [2e-4, 1e-4], over: 160}, betas: [0.5, 0.999]}"
    lecam = "game.penalties={lecam: {weight: 0.1, decay: 0.9}}"
    return toy_overrides(digits, run_dir, f"optimizers={{generator: {adam}, discriminator: {adam}}}", lecam, *more)


@pytest.mark.parametrize("item", [None, *FORGOTTEN])
def test_a_forgotten_item_makes_another_run(
    digits: Path, tmp_path: Path, stopped_and_whole: tuple[Path, Path], item: str | None
) -> None:
    assert is_same_run_without(digits, tmp_path / "run", stopped_and_whole, item) == (item is None)


@pytest.fixture(scope="module")
def stopped_and_whole_fp16(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same with loss scalers."""
    stopped, whole = (tmp_path_factory.mktemp("fp16") / name for name in ("stopped", "whole"))
    run_ranks(1, play, overrides_of(digits, stopped, "precision=fp16"), STOP_AFTER_STEPS)
    run_ranks(1, play, overrides_of(digits, whole, "precision=fp16"))
    return stopped, whole


@pytest.mark.parametrize("item", [None, *FORGOTTEN_FP16])
def test_a_forgotten_loss_scale_makes_another_run(
    digits: Path, tmp_path: Path, stopped_and_whole_fp16: tuple[Path, Path], item: str | None
) -> None:
    same = is_same_run_without(digits, tmp_path / "run", stopped_and_whole_fp16, item, "precision=fp16")
    assert same == (item is None)


def is_same_run_without(
    digits: Path, again: Path, stopped_and_whole: tuple[Path, Path], item: str | None, *more: str
) -> bool:
    """Go on in a copy of the stopped run without an item, and tell whether it ends as the whole one."""
    stopped, whole = stopped_and_whole
    shutil.copytree(stopped, again)
    if item is None:  # nothing is forgotten: the comparison itself is sound
        run_ranks(1, play, overrides_of(digits, again, *more))
    else:
        run_ranks(1, forgetful, overrides_of(digits, again, *more), item)
    (tensors, record), (expected, expected_record) = final_state(again), final_state(whole)
    same = record == expected_record and status_lines(again) == status_lines(whole)
    return same and all(torch.equal(tensors[name], expected[name]) for name in expected)


def go_on_without_cutting_the_log(ranks: Ranks, overrides: list[str]) -> None:
    """Go on with a run whose restore forgot the length of the log."""
    from bigtrain.training.log import RunLog

    RunLog.resume_at = lambda log, *where: None  # type: ignore[method-assign]
    play(ranks, overrides)


def test_a_forgotten_length_of_the_log_repeats_lines(digits: Path, tmp_path: Path) -> None:
    overrides = [*overrides_of(digits, tmp_path / "run", "log.every_images=16"), "total_images=96"]
    run_ranks(1, play, overrides, STOP_AFTER_STEPS)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "000000000080")  # as if killed after the fifth step
    shutil.copytree(tmp_path / "run", tmp_path / "forgetful")
    run_ranks(1, play, overrides)
    run_ranks(1, go_on_without_cutting_the_log, [*overrides, f"run_dir={tmp_path / 'forgetful'}"])
    images = {name: [line["images_seen"] for line in status_lines(tmp_path / name)] for name in ("run", "forgetful")}
    assert images == {"run": [16, 32, 48, 64, 80, 96], "forgetful": [16, 32, 48, 64, 80, 80, 96]}


def docs_section() -> str:
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    return text.split("\n## Checkpoints\n", 1)[1].split("\n## ", 1)[0]


def test_the_list_in_the_docs_is_the_list_that_is_forgotten_item_by_item() -> None:
    from tests.training.test_stylegan2_run import FORGOTTEN as FORGOTTEN_STYLEGAN2

    table = docs_section().split("| state | in the checkpoint |\n| --- | --- |\n", 1)[1].split("\n\n", 1)[0]
    listed = [row.split("|")[1].strip() for row in table.splitlines()]
    assert sorted(listed) == sorted({*FORGOTTEN, *FORGOTTEN_FP16, *FORGOTTEN_STYLEGAN2, LENGTH_OF_LOG})


def test_everything_in_a_checkpoint_is_in_the_docs(stopped_and_whole: tuple[Path, Path]) -> None:
    from bigtrain.engine.checkpoints.checkpoint import read_checkpoint
    from bigtrain.engine.checkpoints.files import newest_complete

    folder = newest_complete(stopped_and_whole[1] / "checkpoints")
    assert folder is not None
    checkpoint = read_checkpoint(folder)
    named = set(re.findall(r"`([a-z_]+)[`/.]", docs_section()))
    assert {name.partition("/")[0] for name in checkpoint.tensors} == {"network", "optimizer", "average", "game"}
    assert {"network", "optimizer", "average", "game"} <= named
    assert checkpoint.record.keys() <= named, checkpoint.record.keys() - named
