"""A polite stop loses nothing: whichever signal, to whichever rank, whatever the run does; then the same run goes
on."""

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigtrain.data import feed
from bigtrain.engine import faults
from bigtrain.engine.checkpoints.files import newest_complete
from bigtrain.engine.ranks import Ranks
from bigtrain.training.log import read_log
from tests.rank_pool import run_ranks, start_ranks
from tests.training.test_resume import assert_same_run
from tests.training.toy_runs import as_json, enter, toy_overrides

pytestmark = pytest.mark.two_process
HANG_LIMIT_S = 200.0
HUNG_READ = 6  # the second of step 3
EVALUATE = (
    "evaluate={every_images: 64, num_images: 64, batch_images: 8, standing_batches: 1, standing_images: 16, "
    "kernel: {subsets: 2, subset_size: 20}, extractor: {kind: classifier, shown_images: 300}}"
)
# Where a pause makes a phase long enough to hit, on rank 0 and on rank 1, and after which step the run then stops.
PHASES = {
    "start-up": ("the classifier", 0),
    "first step": ("slow@backward:1", 1),
    "step": ("slow@backward:10", 3),
    "data wait of rank 0": ("a worker of rank 0", 2),
    "data wait of rank 1": ("a worker of rank 1", 2),
    "gradient accumulation": ("slow@backward:9", 3),
    "evaluation": ("slow@evaluate:2", 4),
    "last evaluation": ("slow@evaluate:6", 8),
    "save": ("slow@checkpoint.write:2", 2),
}


def overrides_of(digits: Path, folder: Path) -> list[str]:
    """A run of 8 steps of 2 micro-batches a rank, saved after 2, 4, ..., evaluated after 4 and 8."""
    few = ("engine=ddp", "total_images=128", "max_micro_batch_images=4", "checkpoint.every_images=32")
    return toy_overrides(digits, folder, EVALUATE, *few, "log.every_images=16")


def live(ranks: Ranks, overrides: list[str], phase: str, ready: Path) -> None:
    """Go through the door with a pause in some phase, tell when it has begun, and end with the run's status."""
    slow = faults.KINDS["slow"]

    def pause() -> None:
        (ready / f"{ranks.rank}").touch()
        slow()

    faults.KINDS["slow"] = pause
    site = PHASES[phase][0]
    if phase == "start-up":
        from bigtrain.metrics.extractors import classifier

        fit = classifier._fit

        def slow_fit(*arguments: object) -> None:
            pause()
            fit(*arguments)  # type: ignore[arg-type]

        classifier._fit = slow_fit  # rank 0 alone trains it
        if ranks.rank == 1:
            (ready / "1").touch()
    elif phase.startswith("data wait"):
        hang_a_worker(site.endswith(str(ranks.rank)), lambda: (ready / f"{ranks.rank}").touch())
        overrides = [*overrides, "data.num_workers=1"]
    else:
        os.environ[faults.VARIABLE] = site
    status = enter(ranks, overrides)
    sys.stderr.flush()
    os._exit(status)


def hang_a_worker(is_hung: bool, tell: Callable[[], None]) -> None:
    """Have this rank's worker never come back from some read, as from a file system that is away, and tell when the
    rank asks for that one: a rank whose worker does not hang has it, and waits for the other."""
    reads, loads = itertools.count(1), itertools.count(1)
    read, load = feed.Feed.read, feed._Samples.__getitem__

    def told_read(self: feed.Feed, *arguments: Any) -> Any:
        if next(reads) == HUNG_READ:
            tell()
        return read(self, *arguments)

    def hung_load(self: feed._Samples, numbers: Any) -> Any:
        if next(loads) == HUNG_READ and is_hung:
            time.sleep(HANG_LIMIT_S)
        return load(self, numbers)

    feed.Feed.read, feed._Samples.__getitem__ = told_read, hung_load  # type: ignore[method-assign]


def stop_and_go_on(digits: Path, folder: Path, phase: str, signum: int, receivers: tuple[int, ...]) -> None:
    """Stop a run of two ranks in a phase, look at what it left, and let it finish."""
    overrides, ready = overrides_of(digits, folder / "run"), folder / "ready"
    ready.mkdir()
    group = start_ranks(2, live, overrides, phase, ready, hang_limit_s=HANG_LIMIT_S)
    for rank in range(2):
        group.wait_for(ready / str(rank))
    for rank in receivers:
        group.signal(rank, signum)
    if phase == "save":
        time.sleep(0.2)
        group.signal(receivers[0], signal.SIGTERM)  # a second one, while saving
    outcomes = group.outcomes()
    assert [outcome.exit_status for outcome in outcomes] == [75, 75], outcomes
    status, stopped_at = as_json(folder / "run" / "status.json"), PHASES[phase][1]
    assert status["exit_status"] == 75
    assert status["step"] == stopped_at or (phase == "save" and status["step"] > stopped_at), "saves run beside steps"
    newest = newest_complete(folder / "run" / "checkpoints")
    assert newest is not None
    assert int(newest.name) == 16 * status["step"]
    unfinished = {
        "start-up": "cache/classifiers/*",
        "evaluation": "run/evaluations/*",
        "last evaluation": "run/evaluations/000000000128*",
    }
    if phase in unfinished:
        assert not list(folder.glob(unfinished[phase])), "long work was finished first"
    assert run_ranks(2, enter, overrides, hang_limit_s=HANG_LIMIT_S) == [0, 0]


def evaluations(folder: Path) -> list[tuple[int, object]]:
    events = [event for event in read_log(folder / "log.jsonl") if event["event"] == "evaluation"]
    return [(event["images_seen"], event["fd_classifier"]) for event in events]


def assert_equal_runs(ours: Path, quiet: Path, phase: str) -> None:
    # What the watchdog learns from an owed evaluation comes after the checkpoint of its step, here the last one.
    assert_same_run(ours, quiet, but=("watch",) if phase == "last evaluation" else ())
    assert evaluations(ours) == evaluations(quiet)
    assert [images for images, _ in evaluations(quiet)] == [64, 128]
    names = [sorted(path.name for path in (run / "evaluations").iterdir()) for run in (ours, quiet)]
    assert names[0] == names[1]


@pytest.fixture(scope="module")
def quiet_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quiet") / "run"
    assert run_ranks(2, enter, overrides_of(digits, folder), hang_limit_s=HANG_LIMIT_S) == [0, 0]
    return folder


REDUCED = [
    ("start-up", signal.SIGUSR1, (1,)),
    ("first step", signal.SIGTERM, (0,)),
    ("data wait of rank 0", signal.SIGUSR2, (1,)),
    ("data wait of rank 1", signal.SIGTERM, (1,)),
    ("gradient accumulation", signal.SIGUSR2, (1,)),
    ("evaluation", signal.SIGTERM, (1,)),
    ("last evaluation", signal.SIGUSR2, (0,)),
    ("save", signal.SIGUSR1, (0,)),
]
GRID = list(itertools.product(PHASES, (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2), ((0,), (1,), (0, 1))))


@pytest.mark.parametrize(("phase", "signum", "receivers"), REDUCED)
def test_a_stop_saves_on_all_ranks_and_the_run_goes_on_as_if_nothing_had_been(
    digits: Path, tmp_path: Path, quiet_run: Path, phase: str, signum: int, receivers: tuple[int, ...]
) -> None:
    stop_and_go_on(digits, tmp_path, phase, signum, receivers)
    assert_equal_runs(tmp_path / "run", quiet_run, phase)


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "signum", "receivers"), [case for case in GRID if case not in REDUCED])
def test_every_signal_to_every_rank_in_every_phase(
    digits: Path, tmp_path: Path, quiet_run: Path, phase: str, signum: int, receivers: tuple[int, ...]
) -> None:
    stop_and_go_on(digits, tmp_path, phase, signum, receivers)
    assert_equal_runs(tmp_path / "run", quiet_run, phase)
