"""Polite stops: a signal sets a flag, ranks agree on it between steps, and the loop saves and leaves by itself.

Nothing is done inside a handler but remembering (saving there deadlocks whatever was interrupted). TERM, USR1 and USR2
mean the same, because schedulers and launchers differ in which one they send; so does the first Ctrl-C, while a later
one raises KeyboardInterrupt. Other signals after the first change nothing.

SLURM signals every process of a job step, data workers too, and a worker that dies of it would take the polite stop
with it. So processes forked while signals are watched ignore them: they end when their parent tells them, or with it.
"""

import atexit
import contextlib
import ctypes
import multiprocessing.util
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import StoppedError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
SAME_INTERRUPT_S = 1.0  # a launcher passes on the Ctrl-C that the terminal has sent to its workers as well
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>: the signal this process gets when its parent ends


class SignalWatch:
    """Remembers the first signal that asks this process to stop."""

    def __init__(self) -> None:
        self.caught: str | None = None
        """Name of the first signal, such as "SIGUSR2", or what else asked; None while nothing did."""
        self.elsewhere: str | None = None
        """What another rank was sent, "SIGUSR2 on rank 1", as far as the heartbeat has brought word of it."""
        self._interrupted_s: float | None = None
        self._previous: dict[int, Any] = {}
        self._previous_wakeup = -1
        self.arrivals, self._writer = socket.socketpair()
        """Readable as soon as a signal has come. Python calls handlers between two instructions of the main thread,
        which may be a long time coming while it waits for other ranks; whoever reads this hands it to `arrived`."""
        self.arrivals.setblocking(False)
        self._writer.setblocking(False)

    def install(self) -> None:
        """Take over the handlers of SIGNALS; installing twice is installing once.

        Raises:
            AssertionError: not the main thread, where alone Python lets handlers be set.
        """
        assert threading.current_thread() is threading.main_thread(), "signals are watched from the main thread"
        if not self._previous:
            self._previous = {signum: signal.signal(signum, self._remember) for signum in SIGNALS}
            self._previous_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            _installed.append(self)
            # Exit functions run in reverse order: this one before multiprocessing's, registered when it was imported.
            atexit.register(_end_children, os.getpid())

    def restore(self) -> None:
        """Give the handlers back to whoever had them before `install`."""
        for signum, handler in self._previous.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)  # None: it was not set from Python
        if self._previous:
            _installed.remove(self)
            signal.set_wakeup_fd(self._previous_wakeup)
        self._previous = {}

    def arrived(self) -> None:
        """Take down what has arrived, also where the main thread has not come to it yet; any thread may call it."""
        with contextlib.suppress(BlockingIOError):
            for signum in self.arrivals.recv(64):
                if self.caught is None and signum in SIGNALS:
                    self.caught = signal.Signals(signum).name

    def ask(self, reason: str) -> None:
        """Ask this process to stop as a signal would, for a reason that has no signal; from any thread."""
        if self.caught is None:
            self.caught = reason

    def ignore(self) -> None:
        """Let no signal but Ctrl-C change how this process leaves: one that does so with 75 before the others has srun
        or a launcher send them TERM, and a rank that dies of it in its last moments would hide the 75."""
        for signum in SIGNALS:
            if signum != signal.SIGINT:
                signal.signal(signum, signal.SIG_IGN)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self.caught is None:
            self.caught = signal.Signals(signum).name
        if signum == signal.SIGINT:
            now_s = time.monotonic()
            if self._interrupted_s is not None and now_s - self._interrupted_s > SAME_INTERRUPT_S:
                raise KeyboardInterrupt
            if self._interrupted_s is None:
                self._interrupted_s = now_s


_installed: list[SignalWatch] = []


def watch() -> SignalWatch:
    """Start to remember signals; call it first thing in a process, so that a stop during start-up counts too."""
    signals = SignalWatch()
    signals.install()
    return signals


class Preemption:
    """Whether this run was asked to stop, agreed across ranks."""

    def __init__(self, ranks: Ranks, signals: SignalWatch | None = None) -> None:
        """Watch from now on, or go on with a watch that was started before the ranks knew each other.

        Args:
            ranks: the ranks that stop together.
            signals: what `watch()` returned; None: start to watch now.
        """
        self._ranks = ranks
        self._signals = signals if signals is not None else watch()
        self._is_own_watch = signals is None
        self.reason: str | None = None
        """Who was asked, once `requested()` was true: "SIGUSR2 on rank 1"; None before."""

    @property
    def pending(self) -> bool:
        """Whether this rank was asked. Others may not know yet: nothing that all ranks do together may depend on it."""
        return self._signals.caught is not None

    def give_way(self) -> None:
        """Be called between parts of long work, and end it where a stop is asked for.

        Nothing is agreed here: what this rank knows yet decides, its own signal or word of another's. Ranks that have
        not heard learn it at the end of the work, which they reach together: from `together`, which raises on them with
        the same exit status, or from `requested`, told that this one gave way.

        Raises:
            StoppedError: a stop is asked for.
        """
        asked = self._signals.caught or self._signals.elsewhere
        if asked is not None:
            raise StoppedError(f"stopped by {asked}")

    def requested(self, gave_way: bool = False) -> bool:
        """Tell all ranks whether any was asked to stop; true ever after. All ranks call it, equally often.

        Args:
            gave_way: whether this rank has left work because of a stop, perhaps another's who has not said so here.
        """
        if self.reason is None and self._ranks.any_true(self.pending or gave_way):
            caught = self._ranks.gather_objects(self._signals.caught)
            self.reason = ", ".join(f"{name} on rank {rank}" for rank, name in enumerate(caught) if name)
        return self.reason is not None

    def close(self) -> None:
        """Give the signal handlers back, if they were taken here.

        A watch that was handed in goes on: a launcher sends TERM as soon as one rank has failed, and must not cut short
        what the others still have to write.
        """
        if self._is_own_watch:
            self._signals.restore()


def die_with_parent(signum: int = signal.SIGTERM) -> None:
    """Have this process sent `signum` when its parent ends; does nothing outside Linux.

    Launchers of one machine leave their workers behind when they are killed. Under SLURM the step sees to it instead.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signum), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended in between, before anybody promised to tell
        os.kill(os.getpid(), signum)


def _ignore_in_child() -> None:
    """In a process forked from one that watches: leave signals to the parent."""
    if _installed:
        signal.set_wakeup_fd(-1)
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


def _end_children(parent: int) -> None:
    """Before multiprocessing waits for its daemons at exit: end those that ignore its TERM because of us."""
    if parent == os.getpid():
        for child in multiprocessing.active_children():
            if child.daemon:
                child.kill()


os.register_at_fork(after_in_child=_ignore_in_child)
