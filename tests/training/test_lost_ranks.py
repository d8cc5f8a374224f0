"""A rank that dies, fails, stops or stands still ends the run: soon, by name, and so that the next start goes on."""

import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from bigtrain.engine import faults
from bigtrain.engine.heartbeat import roll_call
from bigtrain.engine.processes.launch import start
from bigtrain.engine.processes.preemption import Preemption
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import RankLostError
from tests.rank_pool import Outcome, RankProcesses, run_ranks, start_ranks
from tests.training.test_launchers import launch
from tests.training.test_resume import assert_same_run
from tests.training.toy_runs import as_json, enter, final_state, toy_overrides

pytestmark = pytest.mark.two_process
TIMEOUT_S = 6.0
HANG_LIMIT_S = 200.0
SUSPENDED_S = 14.0
# Hang detectors: promised are 10 s, and 10 s after the timeout.
LEFT_WITHIN_S, STOP_NOTICED_WITHIN_S = 10.0, 10 * TIMEOUT_S


def live(ranks: Ranks, overrides: list[str], fault: str = "") -> None:
    """Go through the door under a fault and end as a process does, with its status."""
    os.environ[faults.VARIABLE] = fault
    status = enter(ranks, overrides)
    sys.stderr.flush()
    os._exit(status)


def fail_in_place(ranks: Ranks, overrides: list[str], how: str, rank: int) -> None:
    """As `live`; one rank stands still in, or leaves out, what all do together after its third step."""
    if ranks.rank == rank:
        asked = Preemption.requested
        visits = iter(range(1000))

        def break_once(self: Preemption, gave_way: bool = False) -> bool:
            if next(visits) != 3:
                return asked(self, gave_way)
            if how == "stand still":
                time.sleep(HANG_LIMIT_S)
            return False

        Preemption.requested = break_once  # type: ignore[method-assign]
    live(ranks, overrides)


def run_overrides(digits: Path, folder: Path, *more: str) -> list[str]:
    few = ("engine=ddp", f"timeout_minutes={TIMEOUT_S / 60}", "checkpoint.every_images=32", "log.every_images=16")
    return toy_overrides(digits, folder, *few, *more)


def state_of(pid: int) -> str:
    """Return the letter of a process's state in /proc: T when stopped, Z when dead."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def survive(group: RankProcesses, lost: int, is_stopped: bool) -> float:
    """Return how long after the loss of a rank the other one ended, seconds; a stopped rank is killed then."""
    while group.processes[lost].is_alive() and not (is_stopped and state_of(group.pids[lost]) == "T"):
        time.sleep(0.01)
    lost_s = time.monotonic()
    group.processes[1 - lost].join(HANG_LIMIT_S)
    if is_stopped:
        group.signal(lost, signal.SIGKILL)
    return time.monotonic() - lost_s


def sentence_of(outcome: Outcome) -> str:
    """Return the one sentence that a rank said about another; it said nothing else of its own."""
    words = outcome.error or ""
    assert "Traceback" not in words, words
    found = re.findall(r"rank \d+ (?:is|failed).*", words)
    assert len(found) == 1, words
    return str(found[0])


@pytest.fixture(scope="module")
def quiet_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quiet") / "run"
    assert run_ranks(2, enter, run_overrides(digits, folder)) == [0, 0]
    return folder


def assert_next_start_goes_on(digits: Path, folder: Path, quiet_run: Path) -> None:
    steps = final_state(folder)[1]["progress"]["steps"]
    assert 0 < steps < 10
    assert steps % 2 == 0, "a checkpoint of every second step"
    assert run_ranks(2, enter, run_overrides(digits, folder)) == [0, 0]
    assert_same_run(folder, quiet_run)


# Two visits of backward and allreduce a step: in step 5 of 10, when the save of step 2 is committed, since the one of
# step 4 has waited for it.
@pytest.mark.parametrize(
    ("kind", "site", "rank"),
    [
        ("kill", "backward:10", 1),
        ("kill", "checkpoint.rename:2", 0),
        ("stop", "step:6", 1),
        ("stop", "allreduce:10", 0),
    ],
)
def test_a_rank_that_is_gone_ends_the_run_by_name_and_the_next_start_goes_on(
    digits: Path, tmp_path: Path, quiet_run: Path, kind: str, site: str, rank: int
) -> None:
    fault = f"{kind}@{site},rank={rank}"
    group = start_ranks(2, live, run_overrides(digits, tmp_path), fault, hang_limit_s=HANG_LIMIT_S)
    noticed_s = survive(group, rank, kind == "stop")
    assert noticed_s < (STOP_NOTICED_WITHIN_S if kind == "stop" else LEFT_WITHIN_S)
    survivor = group.outcomes()[1 - rank]
    assert survivor.exit_status == 9, survivor
    sentence = sentence_of(survivor)
    assert re.match(rf"rank {rank} is lost: its process .* on \S+, last seen at .*start the run again", sentence)
    status = as_json(tmp_path / "status.json")
    assert (status["state"], status["exit_status"]) == (f"failed: {sentence}", 9)
    assert_next_start_goes_on(digits, tmp_path, quiet_run)


@pytest.mark.parametrize(("site", "rank"), [("allreduce:10", 1), ("data:10", 0)])
def test_a_bug_on_one_rank_has_its_traceback_there_and_its_name_elsewhere(
    digits: Path, tmp_path: Path, quiet_run: Path, site: str, rank: int
) -> None:
    fault = f"exception@{site},rank={rank}"
    group = start_ranks(2, live, run_overrides(digits, tmp_path), fault, hang_limit_s=HANG_LIMIT_S)
    assert survive(group, rank, is_stopped=False) < LEFT_WITHIN_S
    outcomes = group.outcomes()
    assert outcomes[rank].exit_status == 1
    assert "Traceback" in str(outcomes[rank].error)
    assert "InjectedFaultError: injected" in str(outcomes[rank].error)
    assert outcomes[1 - rank].exit_status == 9
    assert sentence_of(outcomes[1 - rank]).startswith(f"rank {rank} failed: InjectedFaultError: injected (on ")
    assert as_json(tmp_path / "status.json")["exit_status"] == (1 if rank == 0 else 9)
    assert_next_start_goes_on(digits, tmp_path, quiet_run)


@pytest.mark.parametrize(("how", "rank"), [("stand still", 1), ("leave out", 1), ("stand still", 0)])
def test_a_rank_that_is_not_where_the_others_wait_is_named(digits: Path, tmp_path: Path, how: str, rank: int) -> None:
    overrides = run_overrides(digits, tmp_path)
    outcomes = start_ranks(2, fail_in_place, overrides, how, rank, hang_limit_s=HANG_LIMIT_S).outcomes()
    assert [outcome.exit_status for outcome in outcomes] == [9, 9], outcomes
    for outcome in outcomes:
        assert sentence_of(outcome).startswith(f"rank {rank} is stuck: its main thread has not moved for ")
    assert f"rank {rank} is stuck" in as_json(tmp_path / "status.json")["state"]


def test_a_job_that_was_suspended_whole_goes_on(digits: Path, tmp_path: Path) -> None:
    """As schedulers do that take turns; clocks go on meanwhile, and nobody is to blame for it."""
    overrides = run_overrides(digits, tmp_path, f"timeout_minutes={SUSPENDED_S / 60 / 2}")
    group = start_ranks(2, live, overrides, "slow@step:5", hang_limit_s=HANG_LIMIT_S)
    group.wait_for(tmp_path / "checkpoints" / f"{4 * 16:012d}")
    time.sleep(0.5)
    for rank in (0, 1):
        group.signal(rank, signal.SIGSTOP)
    time.sleep(SUSPENDED_S)
    for rank in (0, 1):
        group.signal(rank, signal.SIGCONT)
    assert [outcome.exit_status for outcome in group.outcomes()] == [0, 0]


def meet_nobody(ranks: Ranks) -> tuple[str, str]:
    """Start as one of two processes, of which the other never comes."""
    roll_call.LEAST_START_S = 1.0
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    os.environ.update(place, MASTER_PORT=port, ACCELERATE_USE_CPU="true")
    with pytest.raises(RankLostError) as lost:
        start("ddp", timeout_minutes=1e-3)
    return port, str(lost.value)


def test_a_rank_that_never_comes_is_not_waited_for_without_end() -> None:
    ((port, sentence),) = run_ranks(1, meet_nobody)
    assert sentence.startswith(f"not all 2 processes of this run have met at 127.0.0.1:{port} within")


def test_a_killed_rank_of_a_real_launcher_is_named_in_the_status_file(digits: Path, tmp_path: Path) -> None:
    """The launcher sends the others TERM as soon as it has seen the end of one."""
    options, overrides = ["--multi_gpu", "--num_processes", "2"], run_overrides(digits, tmp_path)
    process = launch(options, overrides, ACCELERATE_USE_CPU="true", **{faults.VARIABLE: "kill@backward:6,rank=1"})
    out, err = process.communicate(timeout=2 * HANG_LIMIT_S)
    assert process.returncode != 0
    sentence = "rank 1 is lost: its process ended on "
    assert sentence in err, out + err
    status = as_json(tmp_path / "status.json")
    assert status["exit_status"] == 9
    assert status["state"].startswith(f"failed: {sentence}")
