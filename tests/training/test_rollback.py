"""Back to the last good checkpoint with other noise: bounded, over restarts too, and what goes on there is exact."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bigtrain.engine import faults
from bigtrain.engine.engine import Outcome, Played
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import DivergenceError
from bigtrain.training import build as builder
from bigtrain.training.health.watchdog import DivergedError, Skips, WatchdogSettings
from bigtrain.training.log import read_log
from bigtrain.training.run import Run
from bigtrain.training.state import restore
from tests.rank_pool import run_ranks
from tests.training.toy_runs import enter, final_state, play, status_lines, toy_overrides

LENGTH = ("total_images=224", "checkpoint.every_images=64")


def spoil_discriminator(ranks: Ranks, overrides: list[str], rank: int, first: int, count: int) -> int:
    """Train while the discriminator's loss is NaN on one rank for some visits; every second backward pass is its."""
    armed = ";".join(f"nan@backward:{2 * number - 1},rank={rank}" for number in range(first, first + count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(faults.VARIABLE, armed)
        return play(ranks, overrides).salt


def restart_with_salt(ranks: Ranks, overrides: list[str]) -> int:
    """Go on from the newest checkpoint with salt 1, as if it had been written so."""

    def with_salt(run: Run, checkpoint: Any) -> None:
        restore(run, checkpoint)
        run.progress = replace(run.progress, salt=1)

    builder.restore = with_salt
    return play(ranks, overrides).salt


@pytest.mark.two_process
def test_five_skips_in_a_row_go_back_to_the_last_good_checkpoint_with_other_noise(digits: Path, tmp_path: Path) -> None:
    # Steps 6 to 10 fail on rank 1; the checkpoint after step 8 lies in the middle of them, that after step 4 before.
    rolled, model = tmp_path / "rolled", tmp_path / "model"
    assert run_ranks(2, spoil_discriminator, toy_overrides(digits, rolled, *LENGTH), 1, 6, 5) == [1, 1]
    assert run_ranks(2, play, toy_overrides(digits, model, *LENGTH), 4)[0].salt == 0
    assert run_ranks(2, restart_with_salt, toy_overrides(digits, model, *LENGTH)) == [1, 1]

    (tensors, record), (expected, expected_record) = final_state(rolled), final_state(model)
    assert not [name for name in expected if not torch.equal(tensors[name], expected[name])]
    assert record == expected_record
    assert status_lines(rolled) == status_lines(model)

    events = read_log(rolled / "log.jsonl")
    (rollback,) = [event for event in events if event["event"] == "rollback"]
    assert rollback["images_seen"] == 64
    assert rollback["from_images"] in (160, 176)
    assert rollback["salt"] == 1
    assert "discriminator/main" in rollback["reason"]
    lost = [json.loads(line) for line in (rolled / "rollbacks" / "001.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "alarm" for event in lost) == 5
    assert not any(event["event"] == "alarm" for event in events)
    assert (rolled / "checkpoints" / ".bad-000000000128").is_dir()


def fail_from(ranks: Ranks, overrides: list[str], images: int, restarts: bool) -> list[str]:
    """Train while every discriminator's turn from some images on is skipped; start anew after each rollback, or not."""
    inner, play_turn = Played.read, Run.play
    late: set[int] = set()

    def note(run: Run, number: int, turn: Any) -> None:
        play_turn(run, number, turn)
        if run.progress.images_seen >= images and turn.player == "discriminator":
            late.add(id(run.unread[-1].played))

    def skipped(played: Played) -> Outcome:
        outcome = inner(played)
        return Outcome(outcome.figures, False) if id(played) in late else outcome

    Played.read, Run.play = skipped, note  # type: ignore[method-assign]
    if restarts:
        from bigtrain.training import loop

        def stop(run: Run, failure: DivergedError) -> None:
            rolled_back(run, failure)
            raise KeyboardInterrupt

        rolled_back, loop.roll_back = loop.roll_back, stop
    ends = []
    while len(ends) < 6 and not any("did not get past" in end for end in ends):
        try:
            ends.append(f"complete at salt {play(ranks, overrides).salt}")
        except KeyboardInterrupt:
            ends.append("killed after a rollback")
        except DivergenceError as error:
            ends.append(f"{error.exit_status}: {error}")
    return ends


@pytest.mark.parametrize("restarts", [False, True])
def test_rollbacks_are_bounded_over_restarts_too(digits: Path, tmp_path: Path, restarts: bool) -> None:
    (ends,) = run_ranks(1, fail_from, toy_overrides(digits, tmp_path, *LENGTH), 96, restarts)
    assert ends[:-1] == ["killed after a rollback"] * (3 if restarts else 0)
    assert ends[-1].startswith("5: discriminator/main had a non-finite loss or gradient for the 5th time in a row")
    assert "3 rollbacks (the last one to 64 images) did not get past it" in ends[-1]
    entries = json.loads((tmp_path / "checkpoints" / "rollbacks.json").read_text())
    assert [(entry["to_images"], entry["salt"]) for entry in entries] == [(64, 1), (64, 2), (64, 3)]
    assert [event["salt"] for event in read_log(tmp_path / "log.jsonl") if event["event"] == "rollback"] == [1, 2, 3]


def test_a_run_that_was_killed_after_a_rollback_goes_on_with_its_salt(digits: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_ranks(1, spoil_discriminator, toy_overrides(digits, whole, *LENGTH), 0, 6, 5)
    run_ranks(1, spoil_and_die, toy_overrides(digits, killed, *LENGTH))
    assert run_ranks(1, play, toy_overrides(digits, killed, *LENGTH))[0].salt == 1
    (tensors, record), (expected, expected_record) = final_state(killed), final_state(whole)
    assert not [name for name in expected if not torch.equal(tensors[name], expected[name])]
    assert record == expected_record
    assert status_lines(killed) == status_lines(whole)
    assert [event["salt"] for event in read_log(killed / "log.jsonl") if event["event"] == "rollback"] == [1]


def spoil_and_die(ranks: Ranks, overrides: list[str]) -> None:
    """Roll back, and end two steps later without a checkpoint."""
    inner = Run.end_step

    def end_step(run: Run) -> None:
        inner(run)
        if run.progress.salt == 1 and run.progress.steps == 6:
            raise KeyboardInterrupt

    Run.end_step = end_step  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        spoil_discriminator(ranks, overrides, 0, 6, 5)


def test_a_failure_before_any_checkpoint_ends_the_run_with_status_5(digits: Path, tmp_path: Path) -> None:
    overrides = toy_overrides(digits, tmp_path, *LENGTH, "watchdog.skipped_in_a_row=2")
    assert run_ranks(1, spoilt_door, overrides) == [5]
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["exit_status"] == 5
    assert "no checkpoint from before that is there" in status["state"]


def spoilt_door(ranks: Ranks, overrides: list[str]) -> int:
    """Go through the door while the first turns are NaN."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(faults.VARIABLE, "nan@data:1;nan@data:2;nan@data:3;nan@data:4")
        return enter(ranks, overrides)


def test_fifty_skips_among_a_thousand_count_from_the_first_of_them() -> None:
    skips = Skips(WatchdogSettings())
    for number in range(1, 1000):
        (skips.skipped("d/main", number, number * 10) if number % 20 == 0 else skips.made("d/main", number))
    with pytest.raises(DivergedError, match="in 50 of its last 1,000 turns") as failure:
        skips.skipped("d/main", 1000, 10000)
    assert failure.value.onset_images == 200
    again = Skips(WatchdogSettings())
    again.load_record(json.loads(json.dumps(skips.record())))
    assert again.record() == skips.record()


def test_rare_skips_are_forgotten_and_other_kinds_do_not_add_up() -> None:
    skips = Skips(WatchdogSettings())
    for number in range(1, 5000):
        for kind in ("discriminator/main", "discriminator/r1", "generator/main"):
            (skips.skipped(kind, number, number) if number % 21 == 0 else skips.made(kind, number))
    skips = Skips(WatchdogSettings())
    skips.skipped("generator/main", 1, 100)
    assert skips.onset_images() == 100
    for number in range(2, 1002):
        skips.made("generator/main", number)
    assert skips.onset_images() is None
    assert skips.record() == {"in_a_row": {}, "recent": {}}


def test_a_finished_copy_needs_no_rollbacks_file(digits: Path, tmp_path: Path) -> None:
    run_ranks(1, play, toy_overrides(digits, tmp_path / "a", "total_images=64"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b" / "checkpoints" / "rollbacks.json").exists()
    assert run_ranks(1, play, toy_overrides(digits, tmp_path / "b", "total_images=80"))[0].salt == 0
