"""Skipped turns: counted by kind, logged with their samples, and the end of a run when one kind goes on failing."""

from pathlib import Path

import pytest

from bigtrain.engine.engine import Outcome, Played
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import DivergenceError
from bigtrain.training.log import read_log
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
