"""Copies the shards of the coming shuffle windows while the present one is read.

The order is a pure function of the position, so what comes is known. One process beside each training process copies
it: several of a node share the work through the cache's locks. If it dies, shards are copied when they are read.
"""

import atexit
import ctypes
import logging
import multiprocessing
import multiprocessing.sharedctypes
import os
import time
import weakref
from collections.abc import Iterable
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from bigtrain.data.order import WindowedOrder
from bigtrain.data.process import FollowParent
from bigtrain.data.shuffle import Integers
from bigtrain.data.staging.cache import Cache
from bigtrain.data.staging.fetch import Wanted
from bigtrain.data.staging.files import StagedFiles
from bigtrain.recipe.errors import DataError

LEASED_WINDOWS = 2  # the present one and the next
READ_AHEAD = 3  # windows, the present one among them, as far as there is room
POLL_S = 0.5
REST_S = 30.0  # after a failure, before the same shard is tried again unasked

log = logging.getLogger(__name__)


class StagedOrder:
    """An order that has the shards copied which come after what it was asked for; the order itself is unchanged."""

    def __init__(self, order: WindowedOrder, files: StagedFiles) -> None:
        self.order = order
        self.files = files
        self.num_samples = order.num_samples
        self._position: Any = multiprocessing.sharedctypes.RawValue(ctypes.c_int64, 0)
        self._process: Any = None

    def sample(self, position: int) -> int:
        """Return the sample at one position."""
        return int(self.samples([position])[0])

    def samples(self, position_N: npt.ArrayLike) -> Integers:
        """Return the samples at many positions, int64 [N]."""
        positions = np.asarray(position_N, dtype=np.int64)
        if positions.size:
            self._position.value = int(positions.min())
            if self._process is None:
                self._process = self._start()
        return self.order.samples(positions)

    def _start(self) -> Any:
        context = multiprocessing.get_context("fork")
        arguments = (self.files, self.order, self._position, os.getpid())
        process = context.Process(target=_copy_ahead, args=arguments, name="shards-ahead", daemon=True)
        process.start()
        weakref.finalize(self, _end, process, os.getpid())
        # Runs before multiprocessing's own exit function, which would wait for a process that nobody has ended.
        atexit.register(_end, process, os.getpid())
        return process


def _end(process: Any, owner: int) -> None:
    """End the process; nothing that it leaves behind is in the way of anybody."""
    if os.getpid() == owner:
        process.kill()
        process.join()


def _copy_ahead(files: StagedFiles, order: WindowedOrder, position: Any, parent: int) -> None:
    """Copy what comes after a position that moves, until the parent ends."""
    FollowParent(parent)()
    cache, failures = files.cache, _Failures()
    lease = cache.lease()
    leased: list[Wanted] = []
    while True:
        windows = [files.wanted(window.tolist()) for window in islice(order.windows_from(position.value), READ_AHEAD)]
        needed = _leasable(windows, cache.limit_bytes)
        if needed != leased:
            cache.renew_lease(lease, needed)
            leased = needed
        if not _copy_next(cache, chain(*windows), failures):
            time.sleep(POLL_S)


def _leasable(windows: list[list[Wanted]], limit_bytes: int | None) -> list[Wanted]:
    """Return the shards of the present window, and of the next where both fit the cache."""
    needed = {wanted.sha256: wanted for wanted in chain(*windows[:LEASED_WINDOWS])}
    fits = limit_bytes is None or sum(wanted.max_bytes for wanted in needed.values()) <= limit_bytes
    return list(needed.values()) if fits else windows[0]


def _copy_next(cache: Cache, coming: Iterable[Wanted], failures: "_Failures") -> bool:
    """Copy the first of the coming shards that nobody has or copies; False where there is none."""
    for wanted in coming:
        if failures.is_resting(wanted):
            continue
        try:
            if cache.prefetch(wanted):
                return True
        except DataError as error:
            failures.note(wanted, error)
    return False


class _Failures:
    """What could not be copied ahead; it is tried again after a rest, or when it is read."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def is_resting(self, wanted: Wanted) -> bool:
        return time.monotonic() < self._until_s.get(wanted.sha256, 0.0)

    def note(self, wanted: Wanted, error: DataError) -> None:
        if wanted.sha256 not in self._until_s:  # once a shard
            log.warning("%s", error)
        self._until_s[wanted.sha256] = time.monotonic() + REST_S
