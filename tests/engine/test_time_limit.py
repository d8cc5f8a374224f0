"""A stop before the job's time limit, by a clock that the test holds."""

import time

import pytest

from bigtrain.engine.processes.preemption import Preemption, SignalWatch
from bigtrain.engine.processes.time_limit import LONGEST_LOOK_S, LOOK_S, TimeLimit, watched_limit
from bigtrain.engine.ranks import Ranks

HOUR_S = 3600.0


def limit(left_s, margin_s=300.0, save_s=0.0):
    """A limit that has looked once, with an hour left."""
    left = [HOUR_S]
    watch = TimeLimit(SignalWatch(), lambda: left[0], margin_s, lambda: save_s)
    watch.look()
    left[0] = left_s
    return watch


@pytest.mark.parametrize(
    ("left_s", "save_s", "wait_s", "is_due"),
    [
        (HOUR_S, 0.0, 550.0, False),  # (3600 - 300) / 6
        (400.0, 0.0, LOOK_S, False),
        (340.0, 0.0, 40.0, True),  # 40 s from now 300 are left
        (340.0, 25.0, 15.0, True),  # and saving needs 25 of them
        (300.0, 0.0, 0.0, True),
        (0.0, 0.0, 0.0, True),
        (None, 0.0, LOOK_S, False),
        (100 * HOUR_S, 0.0, LONGEST_LOOK_S, False),
    ],
)
def test_the_next_look_and_the_stop(left_s, save_s, wait_s, is_due):
    assert limit(left_s, save_s=save_s).look() == (wait_s, is_due)


def test_a_short_job_keeps_three_quarters_of_its_time():
    watch = TimeLimit(SignalWatch(), lambda: 100.0, margin_s=300.0)
    assert watch.look() == (LOOK_S, False)  # 100 - 25 = 75 s to go
    assert TimeLimit(SignalWatch(), lambda: 60.0, margin_s=300.0).look() == (45.0, True)


def test_the_stop_is_asked_for_and_names_the_limit():
    signals = SignalWatch()
    with TimeLimit(signals, lambda: 0.0, margin_s=300.0):
        deadline_s = time.monotonic() + 30
        while signals.caught is None and time.monotonic() < deadline_s:
            time.sleep(0.001)
    preemption = Preemption(Ranks.single(), signals)
    assert preemption.requested()
    assert preemption.reason == "the job's time limit on rank 0"


def test_a_closed_watch_asks_for_nothing():
    signals = SignalWatch()
    watch = TimeLimit(signals, lambda: 30.0, margin_s=1.0)
    with watch:
        pass
    watch._thread.join(timeout=30)
    assert not watch._thread.is_alive()
    assert signals.caught is None


@pytest.mark.parametrize(("job", "margin"), [(None, 5.0), ("12", None)])
def test_nobody_watches_outside_a_job_or_without_a_margin(monkeypatch, job, margin):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    assert not isinstance(watched_limit(margin, SignalWatch(), Ranks.single(), lambda: 0.0), TimeLimit)
