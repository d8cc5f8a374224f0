"""A polite stop reaches every rank, whichever rank and signal it came to."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bigtrain.engine.processes.preemption import SIGNALS, Preemption, SignalWatch, die_with_parent, watch
from bigtrain.engine.ranks import Ranks
from tests.rank_pool import run_ranks, start_ranks

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def signals():
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    watched = watch()
    yield watched
    watched.restore()
    assert {signum: signal.getsignal(signum) for signum in SIGNALS} == before


@pytest.mark.parametrize("signum", SIGNALS)
def test_each_signal_asks_for_a_stop_and_is_named(signals, signum):
    preemption = Preemption(Ranks.single(), signals)
    assert not preemption.pending
    assert not preemption.requested()
    os.kill(os.getpid(), signum)
    assert preemption.pending
    assert preemption.requested()
    assert preemption.reason == f"{signum.name} on rank 0"


def test_later_signals_change_nothing(signals):
    for signum in (signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        os.kill(os.getpid(), signum)
    assert signals.caught == "SIGUSR2"


def test_only_a_second_interrupt_stops_at_once(signals, monkeypatch):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)  # the launcher's copy of the same Ctrl-C
    monkeypatch.setattr("bigtrain.engine.processes.preemption.SAME_INTERRUPT_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_installing_twice_is_installing_once(signals):
    signals.install()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.caught == "SIGTERM"


def signal_self_while_leaving(ranks):
    watched = watch()
    watched.restore()  # as the end of a run does
    watched.ignore()
    for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), signum)
    return [signal.getsignal(signum) == signal.SIG_IGN for signum in SIGNALS]


def test_a_process_that_leaves_is_not_killed_on_its_way():
    assert run_ranks(1, signal_self_while_leaving) == [[True, True, True, False]]


def count_steps_until_asked(ranks, folder):
    preemption = Preemption(ranks)
    for step in range(10_000):
        if step == 3:
            (folder / f"ready-{ranks.rank}").touch()
        if preemption.requested():
            return step, preemption.reason, preemption.pending
        time.sleep(0.002)
    return None


@pytest.mark.two_process
@pytest.mark.parametrize(
    ("signum", "receivers"), [(signal.SIGTERM, [0]), (signal.SIGUSR1, [1]), (signal.SIGUSR2, [0, 1])]
)
def test_all_ranks_stop_at_the_same_step(tmp_path, signum, receivers):
    group = start_ranks(2, count_steps_until_asked, tmp_path)
    for rank in range(2):
        group.wait_for(tmp_path / f"ready-{rank}")
    for rank in receivers:
        group.signal(rank, signum)
    (step_0, reason_0, pending_0), (step_1, reason_1, pending_1) = group.results()
    assert step_0 == step_1 >= 3
    assert reason_0 == reason_1
    assert all(part.startswith(f"{signum.name} on rank") for part in reason_0.split(", "))
    if len(receivers) == 1:
        assert reason_0 == f"{signum.name} on rank {receivers[0]}"
        assert [pending_0, pending_1] == [rank in receivers for rank in range(2)]


def never_asked(ranks):
    preemption = Preemption(ranks)
    return [preemption.requested() for _ in range(5)], preemption.reason


@pytest.mark.two_process
def test_nobody_stops_unasked():
    assert run_ranks(2, never_asked) == [([False] * 5, None)] * 2


def sleep_in_worker(handlers):
    handlers.put([signal.getsignal(signum) == signal.SIG_IGN for signum in SIGNALS])
    time.sleep(1000)


def fork_a_worker(ranks):
    watched = SignalWatch()
    watched.install()
    context = multiprocessing.get_context("fork")
    handlers = context.SimpleQueue()
    worker = context.Process(target=sleep_in_worker, args=(handlers,), daemon=True)
    worker.start()
    ignored = handlers.get()
    for signum in SIGNALS:
        os.kill(worker.pid, signum)
    time.sleep(0.2)
    survived = worker.is_alive()
    worker.kill()
    worker.join()
    return ignored, survived


def test_a_forked_worker_leaves_signals_to_its_parent():
    assert run_ranks(1, fork_a_worker) == [([True] * len(SIGNALS), True)]


EXIT_WITH_WORKER = """
import multiprocessing, sys, time
from bigtrain.engine.processes.preemption import watch
watch()
context = multiprocessing.get_context("fork")
started = context.Event()
def work():
    started.set()
    time.sleep(1000)
context.Process(target=work, daemon=True).start()
started.wait()
"""


def test_a_worker_that_ignores_signals_does_not_hold_up_the_exit():
    done = subprocess.run([sys.executable, "-c", EXIT_WITH_WORKER], cwd=CHECKOUT, timeout=60, check=False)
    assert done.returncode == 0


def end_launcher(ranks, promised):
    """Fork a launcher that forks a worker, kill the launcher, and tell whether the worker ends too."""
    reading, writing = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        if os.fork() == 0:
            if promised:
                die_with_parent()
            os.write(writing, str(os.getpid()).encode())
        time.sleep(1000)
    worker = int(os.read(reading, 20))
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    try:
        return wait_for_end(worker, 20.0 if promised else 0.5)
    finally:
        if is_running(worker):
            os.kill(worker, signal.SIGKILL)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(pid, limit_s):
    deadline_s = time.monotonic() + limit_s
    while is_running(pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return not is_running(pid)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("promised", [True, False])
def test_a_worker_ends_with_its_launcher_only_if_it_asked_for_it(promised):
    assert run_ranks(1, end_launcher, promised) == [promised]
