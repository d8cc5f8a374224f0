"""A polite stop in time before a job's limit, whether or not a signal announces it.

SLURM's --signal comes up to a minute early or, where a launcher swallows it, never. So the main process also asks how
long the job may still run, in a thread: rarely, because the controller answers everybody's questions.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

from bigtrain.engine.processes.preemption import SignalWatch
from bigtrain.engine.processes.slurm import job_key, seconds_left
from bigtrain.engine.ranks import Ranks

LOOK_S = 60.0  # at most once a minute
LONGEST_LOOK_S = 600.0  # far from the limit; it can be shortened meanwhile
LARGEST_SHARE = 0.25  # of what is left at the first look: a short job is not over before it began


class TimeLimit:
    """Asks `signals` for a stop once the time left is less than a margin and what the last save took.

    `with TimeLimit(...)` looks in a thread from then on.
    """

    def __init__(
        self,
        signals: SignalWatch,
        seconds_left: Callable[[], float | None],
        margin_s: float,
        save_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Prepare.

        Args:
            signals: what remembers that this process was asked to stop.
            seconds_left: says how long the job may still run; None: nobody knows, or there is no limit.
            margin_s: how long before the limit to stop; at most a quarter of what is left at the first look.
            save_s: says how long the last save took, in seconds.
        """
        self._signals, self._seconds_left, self._margin_s, self._save_s = signals, seconds_left, margin_s, save_s
        self._has_looked = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="time-limit", daemon=True)

    def __enter__(self) -> "TimeLimit":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()  # not waited for: it may hang on a controller that does not answer

    def look(self) -> tuple[float, bool]:
        """Ask once; return for how many seconds to wait then, and whether the stop is due at their end."""
        left_s = self._seconds_left()
        if left_s is None:
            return LOOK_S, False
        if not self._has_looked:
            self._has_looked, self._margin_s = True, min(self._margin_s, LARGEST_SHARE * left_s)
        spare_s = max(0.0, left_s - self._margin_s - self._save_s())
        if spare_s <= LOOK_S:
            return spare_s, True
        return max(LOOK_S, min(LONGEST_LOOK_S, spare_s / 6)), False

    def _watch(self) -> None:
        is_due = False
        while not is_due:
            wait_s, is_due = self.look()
            if self._closed.wait(wait_s):
                return
        self._signals.ask("the job's time limit")


def watched_limit(
    margin_minutes: float | None, signals: SignalWatch, ranks: Ranks, save_s: Callable[[], float]
) -> AbstractContextManager[object]:
    """Return what watches the limit of the SLURM job while it is entered: on the main process, inside a job, and unless
    the margin is None."""
    job = job_key()
    if job is None or margin_minutes is None or not ranks.is_main:
        return nullcontext()
    return TimeLimit(signals, lambda: seconds_left(job), margin_minutes * 60, save_s)
