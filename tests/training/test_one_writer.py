"""A requeued copy that starts while the first is still dying waits for it, and goes on where it ended."""

import os
import signal
from pathlib import Path

from bigtrain.engine import faults
from bigtrain.engine.ranks import Ranks
from bigtrain.training.log import read_log
from tests.rank_pool import run_ranks, start_ranks
from tests.training.test_resume import assert_same_run
from tests.training.toy_runs import enter, toy_overrides

HANG_LIMIT_S = 200.0


def die_slowly(ranks: Ranks, overrides: list[str], ready: Path) -> int:
    """Go through the door; pause within the fifth step, and again while saving."""
    slow = faults.KINDS["slow"]

    def pause() -> None:
        ready.touch()
        slow()

    faults.KINDS["slow"] = pause
    os.environ[faults.VARIABLE] = "slow@step:5;slow@checkpoint.write:4"
    return enter(ranks, overrides)


def test_a_copy_that_starts_while_the_first_is_dying_waits_and_goes_on(digits: Path, tmp_path: Path) -> None:
    quiet, folder = tmp_path / "quiet", tmp_path / "run"
    assert run_ranks(1, enter, toy_overrides(digits, quiet, "log.every_images=16")) == [0]
    overrides = toy_overrides(digits, folder, "log.every_images=16")
    first = start_ranks(1, die_slowly, overrides, tmp_path / "ready", hang_limit_s=HANG_LIMIT_S)
    first.wait_for(tmp_path / "ready")
    first.signal(0, signal.SIGTERM)
    second = start_ranks(1, enter, overrides, hang_limit_s=HANG_LIMIT_S)
    assert first.results() == [75]
    assert second.results() == [0]
    assert_same_run(folder, quiet)
    steps = [event["step"] for event in read_log(folder / "log.jsonl") if event["event"] == "status"]
    assert steps == list(range(1, 11)), "two writers"
