"""Helper processes that end with the process that started them, and lists of independent jobs."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

PR_SET_PDEATHSIG = 1  # linux/prctl.h
TERM_GRACE_S = 60  # longer than a step and shorter than anyone waits for a program to end


@dataclass(frozen=True)
class FollowParent:
    """What a helper process does first: die with its parent, and leave signals to it.

    SLURM signals every process of a step; the training process then ends its step and saves, and still needs its data.
    SIGTERM therefore ends a helper only `TERM_GRACE_S` later: its parent may also mean it, while it leaves.
    """

    parent: int

    def __call__(self, worker: int = 0) -> None:
        """Take effect in the calling process; `worker` is the DataLoader's number for it."""
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.parent:  # it died before the line above took hold
            os._exit(1)
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, _end_later)


def _end_later(number: int, frame: FrameType | None) -> None:
    signal.alarm(TERM_GRACE_S)


def run_jobs(job: Callable[[Item], Result], items: Sequence[Item], jobs: int, chunk: int = 1) -> Iterator[Result]:
    """Yield the result of each item in order, computed by `jobs` processes (1: by this one),
    `chunk` items handed over at once."""
    if jobs <= 1 or len(items) <= 1:
        yield from map(job, items)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(jobs, len(items)), context, FollowParent(os.getpid())) as pool:
        try:
            yield from pool.map(job, items, chunksize=chunk)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
