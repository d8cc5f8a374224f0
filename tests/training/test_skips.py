"""Skipped turns: counted by kind, logged with their samples, and the end of a run when one kind goes on failing."""

from pathlib import Path

import numpy as np
import pytest

from bigtrain.engine import faults
from bigtrain.engine.engine import Outcome, Played
from bigtrain.engine.ranks import Ranks
from bigtrain.games.base import Turn
from bigtrain.recipe.errors import DivergenceError
from bigtrain.training.log import read_log
from bigtrain.training.run import Run
from tests.rank_pool import run_ranks
from tests.training.toy_runs import play, toy_overrides


def skip_discriminator(ranks: Ranks, overrides: list[str], is_rescaled: bool) -> str:
    """Train while every discriminator's turn is skipped; return how it ends."""
    inner = Played.read

    def skipped(played: Played) -> Outcome:
        outcome = inner(played)
        is_hit = "loss_discriminator" in outcome.figures
        return Outcome(outcome.figures, False, is_rescaled) if is_hit else outcome

    Played.read = skipped  # type: ignore[method-assign]
    try:
        return f"{play(ranks, overrides).turns}"
    except DivergenceError as error:
        return str(error)


@pytest.mark.two_process
def test_one_player_that_goes_on_failing_ends_the_run_whatever_the_other_does(digits: Path, tmp_path: Path) -> None:
    first, second = run_ranks(2, skip_discriminator, toy_overrides(digits, tmp_path), False)
    assert first == second
    assert "discriminator/main had a non-finite loss or gradient for the 5th time in a row, the first time" in first
    assert "no checkpoint from before that is there to go back to" in first
    alarms = [event for event in read_log(tmp_path / "log.jsonl") if event["event"] == "alarm"]
    assert len(alarms) == 5
    samples = [number for rank in alarms[0]["samples_by_rank"] for micro in rank for number in micro]
    assert len(set(samples)) == 16


def test_a_loss_scale_that_can_still_be_halved_is_no_divergence(digits: Path, tmp_path: Path) -> None:
    (ended,) = run_ranks(1, skip_discriminator, toy_overrides(digits, tmp_path), True)
    assert "'discriminator/main/skipped': 10" in ended
    assert "'generator/main': 10" in ended


def spoil_once(ranks: Ranks, overrides: list[str]) -> tuple[dict[str, int], list[int]]:
    """Train while one turn is NaN on rank 1; return the counters and the samples of step 1, in order."""
    samples: list[int] = []
    inner = Run.play

    def play_turn(run: Run, number: int, turn: Turn) -> None:
        if run.progress.steps == 1 and not samples:
            order = run.shards.order(run.recipe.seed, run.recipe.data.shuffle_window_shards)
            places = run.progress.position + np.arange(run.recipe.batch_images)
            samples.extend(order.samples(places).tolist())
        inner(run, number, turn)

    Run.play = play_turn  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(faults.VARIABLE, "nan@backward:3,rank=1")
        return dict(play(ranks, overrides).turns), samples


@pytest.mark.two_process
def test_a_turn_that_fails_on_one_rank_is_counted_once_on_all_with_its_samples(digits: Path, tmp_path: Path) -> None:
    (first, samples), (second, _) = run_ranks(2, spoil_once, toy_overrides(digits, tmp_path, "total_images=48"))
    assert first == second == {"discriminator/main": 2, "discriminator/main/skipped": 1, "generator/main": 3}
    (alarm,) = [event for event in read_log(tmp_path / "log.jsonl") if event["event"] == "alarm"]
    assert (alarm["turn"], alarm["images_seen"], alarm["salt"]) == ("discriminator/main", 16, 0)
    assert [number for rank in alarm["samples_by_rank"] for micro in rank for number in micro] == samples
