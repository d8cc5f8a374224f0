"""A checkpoint belongs to the run, not to the processes that wrote it: other ranks and engines go on with it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bigtrain.engine.ranks import Ranks
from bigtrain.training.state import tensors_of
from tests.rank_pool import run_ranks
from tests.training.test_resume import assert_same_run
from tests.training.toy_runs import final_state, play, toy_overrides, toy_run

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'bigtrain[deepspeed]'")

STOP_AFTER_STEPS = 5


def look(ranks: Ranks, overrides: list[str], engine: str) -> tuple[dict[str, Tensor], dict[int, int], dict[str, Any]]:
    """Resume a run; return its tensors, which sample is at which place of the next batch, and the figures of a step."""
    run = toy_run(ranks, overrides, engine)
    tensors = {name: tensor.clone() for name, tensor in tensors_of(run).items()}
    batches = run.feed.read(run.progress.position)
    places = [place for micro in range(run.engine.layout.accumulation) for place in run.engine.layout.positions(micro)]
    samples = dict(zip(places, torch.cat([batch.sample_N for batch in batches]).tolist(), strict=True))
    figures: dict[str, float] = {}
    for number, turn in enumerate(run.game.turns(run.progress)):
        run.play(number, turn)
        figures |= run.unread[-1].played.read().figures
    run.close()
    return tensors, samples, figures


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, "ddp"), (1, "plain")),
        ((1, "plain"), (2, "ddp")),
        ((2, "ddp"), (2, "zero1")),
        ((2, "zero1"), (2, "ddp")),
        ((1, "plain"), (2, "zero2")),
        ((2, "zero2"), (1, "plain")),
    ],
)
def test_other_ranks_and_engines_go_on_with_the_same_state(
    digits: Path, tmp_path: Path, before: tuple[int, str], after: tuple[int, str]
) -> None:
    overrides = toy_overrides(digits, tmp_path)
    run_ranks(before[0], play, overrides, STOP_AFTER_STEPS, before[1])
    saved = final_state(tmp_path)[0]
    assert any(name.endswith("/exp_avg_sq") and tensor.any() for name, tensor in saved.items())
    same = run_ranks(before[0], look, overrides, before[1])
    other = run_ranks(after[0], look, overrides, after[1])
    for tensors, _, figures in other:
        assert tensors.keys() == saved.keys()
        different = [name for name in saved if not torch.equal(tensors[name], saved[name])]
        assert not different, different
        assert figures["loss_discriminator"] == pytest.approx(
            same[0][2]["loss_discriminator"], abs=1e-6
        )  # of margins of 1
        assert figures == pytest.approx(same[0][2], rel=1e-3)
    assert {place: sample for _, samples, _ in other for place, sample in samples.items()} == {
        place: sample for _, samples, _ in same for place, sample in samples.items()
    }


@pytest.mark.parametrize("engine", ["zero1", "zero2"])
def test_a_stopped_zero_run_equals_an_uninterrupted_one(digits: Path, tmp_path: Path, engine: str) -> None:
    quiet, stopped = tmp_path / "quiet", tmp_path / "stopped"
    run_ranks(2, play, toy_overrides(digits, quiet), None, engine)
    run_ranks(2, play, toy_overrides(digits, stopped), STOP_AFTER_STEPS, engine)
    (progress, _) = run_ranks(2, play, toy_overrides(digits, stopped), None, engine)
    assert progress.steps == 10
    assert_same_run(stopped, quiet)


def test_a_run_passed_around_ends_where_a_quiet_one_does(digits: Path, tmp_path: Path) -> None:
    quiet, passed = tmp_path / "quiet", tmp_path / "passed"
    gentle = ("optimizers.generator.eps=1e-3", "optimizers.discriminator.eps=1e-3")  # else rounding grows
    run_ranks(1, play, toy_overrides(digits, quiet, *gentle))
    for world, engine, stop in ((2, "ddp", 2), (2, "zero1", 4), (2, "ddp", 6), (1, "plain", 8), (2, "zero2", None)):
        run_ranks(world, play, toy_overrides(digits, passed, *gentle), stop, engine)
    (tensors, record), (expected, expected_record) = final_state(passed), final_state(quiet)
    assert record["progress"] == expected_record["progress"]
    for name, reference in expected.items():
        if name.startswith("average/") and reference.is_floating_point():
            gap = float((tensors[name].double() - reference.double()).norm())
            assert gap <= 1e-3 * max(float(reference.double().norm()), 1e-2), name
