"""Chaos: a run that is killed, signalled, frozen, damaged and refused by its disk again and again is, in the end, the
run that nobody disturbed. Nobody helps it but a driver that starts the same command again, as a scheduler does.
"""

import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from bigtrain.engine import faults
from bigtrain.engine.checkpoints.files import PINNED, committed
from bigtrain.engine.checkpoints.names import folder_name
from bigtrain.engine.ranks import Ranks
from bigtrain.training.log import read_log
from tests.rank_pool import RankProcesses, run_ranks, start_ranks
from tests.training.test_resume import assert_same_run
from tests.training.toy_runs import BATCH_IMAGES, enter, toy_overrides

WORLD = 2
SAVE_EVERY_STEPS = 2
STEPS_BEFORE_FAULT = (7, 12)  # of a start: two checkpoints at least are new by then, whatever happened before
HANG_LIMIT_S = 600.0
POLL_S = 0.02
KINDS = ("kill", "TERM", "USR2", "freeze", "flip", "full disk")


@dataclass(frozen=True)
class Trouble:
    """What happens to one start."""

    kind: str
    rank: int
    steps: int
    """After so many steps of this start."""
    number: int
    """Which write fails, or which bit flips, counted round."""

    @property
    def fault(self) -> str:
        """What BIGTRAIN_FAULT is set to."""
        kill = f"kill@step:{self.steps},rank={self.rank}"
        return {
            "kill": kill,
            "flip": kill,
            "freeze": f"stop@step:{self.steps},rank={self.rank}",
            "full disk": f"enospc@checkpoint.write:{self.number % 60 + 1},rank={1 - self.rank};{kill}",
        }.get(self.kind, "")


def troubles(seed: int, number: int) -> list[Trouble]:
    """Return a plan: every kind about equally often, in an order, on ranks and at steps that the seed draws."""
    draw = random.Random(seed)
    kinds = [KINDS[place % len(KINDS)] for place in range(number)]
    draw.shuffle(kinds)
    return [
        Trouble(kind, draw.randrange(WORLD), draw.randint(*STEPS_BEFORE_FAULT), draw.getrandbits(30)) for kind in kinds
    ]


def enter_under(ranks: Ranks, overrides: list[str], fault: str) -> int:
    """Train as the command line does, under a fault."""
    os.environ[faults.VARIABLE] = fault
    return enter(ranks, overrides)


def suffer(trouble: Trouble, run_dir: Path, overrides: list[str]) -> list[int | None]:
    """Start the run, let the trouble happen and return how the ranks ended."""
    reached = committed(run_dir / "checkpoints")
    target = (reached[0] if reached else 0) + trouble.steps * BATCH_IMAGES
    group = start_ranks(WORLD, enter_under, overrides, trouble.fault, hang_limit_s=HANG_LIMIT_S)
    if trouble.kind in ("TERM", "USR2"):
        wait_until(group, lambda: last_images(run_dir) >= target)
        group.signal(trouble.rank, signal.Signals[f"SIG{trouble.kind}"])
    elif trouble.kind == "freeze":
        wait_until(group, lambda: is_stopped(group.pids[trouble.rank]))
        for rank in range(WORLD):
            group.signal(rank, signal.SIGKILL)
    statuses = [each.exit_status if each.error else each.value for each in group.outcomes()]
    if trouble.kind == "flip":
        flip(run_dir / "checkpoints", trouble.number)
    return statuses


def wait_until(group: RankProcesses, is_so: object) -> None:
    started_s = time.monotonic()
    while not is_so():  # type: ignore[operator]
        assert all(process.is_alive() for process in group.processes), [o.error for o in group.outcomes()]
        assert time.monotonic() - started_s < HANG_LIMIT_S
        time.sleep(POLL_S)


def last_images(run_dir: Path) -> int:
    log = run_dir / "log.jsonl"
    lines = [event["images_seen"] for event in read_log(log) if event["event"] == "status"] if log.exists() else []
    return lines[-1] if lines else 0


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def flip(folder: Path, number: int) -> None:
    """Flip a bit of the newest checkpoint; not of the note that it is pinned, which is none of its content."""
    newest = folder / folder_name(committed(folder)[0])
    files = sorted(path for path in newest.iterdir() if path.stat().st_size and path.name != PINNED)
    path = files[number % len(files)]
    content = bytearray(path.read_bytes())
    content[number % len(content)] ^= 1 << number % 8
    path.write_bytes(content)


EXPECTED = {"TERM": {75}, "USR2": {75}, "freeze": {-signal.SIGKILL}}


def check_chaos(digits: Path, tmp_path: Path, num_steps: int, plan: list[Trouble]) -> None:
    quiet, run_dir = tmp_path / "quiet", tmp_path / "run"
    ways = (
        "engine=ddp", f"total_images={num_steps * BATCH_IMAGES}", f"log.every_images={BATCH_IMAGES}",
        f"checkpoint.every_images={SAVE_EVERY_STEPS * BATCH_IMAGES}",
    )  # fmt: skip
    run_ranks(WORLD, enter_under, toy_overrides(digits, quiet, *ways), "", hang_limit_s=HANG_LIMIT_S)
    overrides = toy_overrides(digits, run_dir, *ways)
    happened = []
    for trouble in plan:
        statuses = suffer(trouble, run_dir, overrides)
        happened.append((trouble, statuses))
        assert None not in statuses, f"a rank hung: {happened}"
        if trouble.kind in EXPECTED:
            assert set(statuses) == EXPECTED[trouble.kind], happened
        else:
            assert statuses[trouble.rank] == -signal.SIGKILL, happened
    assert run_ranks(WORLD, enter_under, overrides, "", hang_limit_s=HANG_LIMIT_S) == [0] * WORLD
    assert_same_run(run_dir, quiet)
    assert len(list((run_dir / "checkpoints").glob(".bad-*"))) == sum(trouble.kind == "flip" for trouble in plan)


@pytest.mark.two_process
def test_a_run_with_five_faults_ends_as_the_quiet_one(digits: Path, tmp_path: Path) -> None:
    plan = troubles(seed=1, number=len(KINDS))
    plan = [trouble for trouble in plan if trouble.kind != "TERM"]  # USR2 is treated alike
    check_chaos(digits, tmp_path, 50, plan)


@pytest.mark.slow
@pytest.mark.two_process
@pytest.mark.parametrize("seed", [2])
def test_a_run_with_twenty_faults_ends_as_the_quiet_one(digits: Path, tmp_path: Path, seed: int) -> None:
    check_chaos(digits, tmp_path, 200, troubles(seed, number=20))
