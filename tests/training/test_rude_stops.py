"""A rude stop loses at most one save interval: killed at any time, also in the grace after a polite stop."""

import random
import signal
import time
from pathlib import Path

import pytest

from bigtrain.engine.checkpoints.files import newest_complete
from bigtrain.training.log import read_log
from tests.rank_pool import RankProcesses, run_ranks, start_ranks
from tests.training.test_resume import assert_same_run
from tests.training.toy_runs import BATCH_IMAGES, enter, toy_overrides

pytestmark = pytest.mark.two_process
INTERVAL_STEPS = 2
HANG_LIMIT_S = 200.0
LONGEST_S = 5.0  # of a life; the first step takes about 2 s on a quiet machine, the others 0.05 s
GRACE_S = 0.05  # after a signal, too short for a save
VICTIMS = ((0,), (1,), (0, 1))


def overrides_of(digits: Path, folder: Path) -> list[str]:
    few = ("engine=ddp", f"checkpoint.every_images={INTERVAL_STEPS * BATCH_IMAGES}", "log.every_images=16")
    return toy_overrides(digits, folder, *few, "total_images=640", "timeout_minutes=1")


def logged_steps(folder: Path) -> int:
    """Return the last step that the log tells of; 0 before there is one."""
    path = folder / "log.jsonl"
    return max((event["step"] for event in read_log(path)), default=0) if path.exists() else 0


def saved_steps(folder: Path) -> int:
    newest = newest_complete(folder / "checkpoints")
    return 0 if newest is None else int(newest.name) // BATCH_IMAGES


def kill_some_time(group: RankProcesses, folder: Path, chance: random.Random) -> None:
    """Kill one rank or both some time after they have met; who comes first to a meeting waits for long."""
    group.wait_for(folder / "status.json")
    time.sleep(chance.uniform(0.0, LONGEST_S))
    victims, has_grace = chance.choice(VICTIMS), chance.random() < 0.5
    for signum in (signal.SIGUSR2, signal.SIGKILL) if has_grace else (signal.SIGKILL,):
        for rank in victims:
            if group.processes[rank].is_alive():
                group.signal(rank, signum)
        time.sleep(GRACE_S)


def live_and_die(digits: Path, folder: Path, lives: int, seed: int) -> None:
    """Kill a run again and again; each time at most an interval is lost. Then let it finish."""
    overrides, chance = overrides_of(digits, folder), random.Random(seed)
    for life in range(lives):
        (folder / "status.json").unlink(missing_ok=True)
        group = start_ranks(2, enter, overrides, hang_limit_s=HANG_LIMIT_S)
        kill_some_time(group, folder, chance)
        outcomes = group.outcomes()
        assert None not in [outcome.exit_status for outcome in outcomes], outcomes
        assert saved_steps(folder) >= logged_steps(folder) - INTERVAL_STEPS, f"life {life} of seed {seed}"
    assert run_ranks(2, enter, overrides, hang_limit_s=HANG_LIMIT_S) == [0, 0]


@pytest.fixture(scope="module")
def quiet_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quiet") / "run"
    assert run_ranks(2, enter, overrides_of(digits, folder), hang_limit_s=HANG_LIMIT_S) == [0, 0]
    return folder


def test_a_run_killed_twice_loses_an_interval_at_most_and_ends_the_same(
    digits: Path, tmp_path: Path, quiet_run: Path
) -> None:
    live_and_die(digits, tmp_path / "run", 2, seed=0)
    assert_same_run(tmp_path / "run", quiet_run)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_run_killed_five_times_loses_an_interval_at_most_and_ends_the_same(
    digits: Path, tmp_path: Path, quiet_run: Path, seed: int
) -> None:
    live_and_die(digits, tmp_path / "run", 5, seed)
    assert_same_run(tmp_path / "run", quiet_run)
