"""Waiting for shards so that the process that trains can tell a long wait from a dead one, and end it."""

import ctypes
import multiprocessing.sharedctypes
import os
import random
import time
from collections.abc import Callable
from typing import Any

POLL_S = 0.1
FIRST_PAUSE_S = 1.0  # after a failure, before the next attempt; doubled after each further one
JITTER = 0.25  # of a pause, so that nodes that failed together do not come back together


def pause_s(failures: int) -> float:
    """Return how long to wait after the given number of failures in a row, seconds."""
    spread = random.SystemRandom().uniform(1 - JITTER, 1 + JITTER)
    return FIRST_PAUSE_S * 2.0 ** (failures - 1) * spread


class Patience:
    """Counts signs of life over all processes forked from the one that made it, and lets that one's waits be ended."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._signs: Any = multiprocessing.sharedctypes.RawValue(ctypes.c_uint64, 0)
        self.give_way: Callable[[], object] = lambda: None
        """Called during waits of the process that made this, which end with what it raises."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]  # another program, with a count of its own

    @property
    def is_owner(self) -> bool:
        """Whether this process made it, or was handed it, and is none that was forked since."""
        return os.getpid() == self._owner

    @property
    def signs(self) -> int:
        """How often anything has moved; that it has changed is all that it tells."""
        return int(self._signs.value)

    def moved(self) -> None:
        """Tell that bytes came, or that another process is seen at work on them."""
        self._signs.value += 1
        self.check()

    def check(self) -> None:
        """Give way where that is asked for."""
        if self.is_owner:
            self.give_way()

    def sleep(self, seconds: float) -> None:
        """Sleep, with signs of life."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(POLL_S, left_s))
            self.moved()

    def poll(self) -> None:
        """Sleep for as long as lies between two looks at what others do; they give the signs of life."""
        time.sleep(POLL_S)
        self.check()
