"""One writer per run folder.

Two guards. RUN/.lock is held with a POSIX record lock (fcntl), which the kernel drops with its holder and which NFS and
Lustre carry between nodes when mounted to do so. RUN/.lock.json says who holds it, and its beat changes every few
seconds: where a file system keeps locks to one node, or has none, a beat that goes on still refuses the second writer.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

from bigtrain.engine.processes.holder import HOLDER_FILE, Holder, read_holder
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import FolderLockedError, UsageError

LOCK_FILE = ".lock"
WAIT_S = 20.0  # a requeued job may start while the one before it is still dying
POLL_S = 0.2
BEAT_S = 5.0
MISSED_BEATS = 3  # a holder on another host that was silent for so many is gone
SETTLE_S = 1.0  # where there are no locks: how long two that start at once take to see each other
TAKEN = (errno.EACCES, errno.EAGAIN)
NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

log = logging.getLogger(__name__)
_held: set[tuple[int, int]] = set()
"""Lock files (device, inode) that this process holds. Record locks do not stop their own process, and closing any of
its descriptors of the file drops them, so a held file must not even be opened again."""


class RunLock:
    """A run folder that this run alone writes: `with RunLock(folder, ranks): ...`, entered by all ranks together."""

    def __init__(self, folder: Path, ranks: Ranks | None = None, wait_s: float = WAIT_S) -> None:
        """Name what to lock; `with` or `acquire` locks it.

        Args:
            folder: the run folder; made if it is not there.
            ranks: the ranks of the run, of which rank 0 holds the lock; None: one process.
            wait_s: how long to wait for another writer to leave.
        """
        self.folder = folder
        self._ranks = ranks if ranks is not None else Ranks.single()
        self._wait_s = wait_s
        self._own = Holder.own()
        self._file: int | None = None
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the folder, or wait for it.

        Raises:
            FolderLockedError: another process still writes it after `wait_s`; on all ranks, naming the process.
            UsageError: the folder cannot be made or written.
        """
        refusal = self._ranks.together(lambda: self._wait() if self._ranks.is_main else None)
        refusal = self._ranks.broadcast_object(refusal)
        if refusal is not None:
            raise FolderLockedError(
                f"{self.folder} is being written by {refusal}, which did not leave within {self._wait_s:g} s; "
                "stop it, or give this run a run_dir of its own"
            )

    def release(self) -> None:
        """Give the folder back; rank 0 does, the others have nothing to give."""
        if self._file is None:
            return
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
        with contextlib.suppress(OSError):  # a folder that has vanished needs no lock
            (self.folder / HOLDER_FILE).unlink()
        _held.discard(_identity(os.fstat(self._file)))
        os.close(self._file)
        self._file = None

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _wait(self) -> str | None:
        """Take the lock; return None, or after `wait_s` who has it."""
        deadline_s = time.monotonic() + self._wait_s
        silence = Silence()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while (rival := self._try(silence)) is not None:
                if time.monotonic() > deadline_s:
                    return rival
                time.sleep(POLL_S)
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be written ({error}); choose another run_dir") from error
        return None

    def _try(self, silence: "Silence") -> str | None:
        """Take the lock if it can be had now; return None then, else who has it."""
        path = self.folder / LOCK_FILE
        if path.exists() and _identity(path.stat()) in _held:
            return "this process itself"
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            has_locks = _lock(file)
            rival = read_holder(self.folder)
            if has_locks is None or (rival is not None and not self._is_gone(rival, silence)):
                return str(rival or "a process that left no name")
            self._write(self._own)
            if not has_locks:
                time.sleep(SETTLE_S)
                rival = read_holder(self.folder)
                if rival is None or not rival.is_same_as(self._own):
                    return str(rival)
            self._hold(file)
            return None
        finally:
            if self._file is None:
                os.close(file)

    def _is_gone(self, rival: Holder, silence: "Silence") -> bool:
        if rival.stamp.is_on_this_host:
            return not rival.stamp.is_alive_here
        return rival.was_restarted_as(self._own) or silence.seconds(rival) > BEAT_S * MISSED_BEATS

    def _hold(self, file: int) -> None:
        self._file = file
        _held.add(_identity(os.fstat(file)))
        self._ended.clear()
        self._heart = threading.Thread(target=self._beat, name="run-lock", daemon=True)
        self._heart.start()

    def _beat(self) -> None:
        own = self._own
        while not self._ended.wait(BEAT_S):
            try:
                holder = read_holder(self.folder)
                if holder is not None and not holder.is_same_as(own):
                    log.error("%s was taken by %s; two runs may be writing it", self.folder, holder)
                    return
                own = replace(own, beat=own.beat + 1)
                self._write(own)
            except OSError as error:  # a full disk or a network away for a while; the lock itself needs no writing
                log.warning("the beat of %s could not be written: %s", self.folder, error)

    def _write(self, holder: Holder) -> None:
        aside = self.folder / f"{HOLDER_FILE}.{holder.host}.{holder.pid}"
        aside.write_text(json.dumps(asdict(holder)) + "\n")
        aside.replace(self.folder / HOLDER_FILE)


class Silence:
    """How long a holder's beat was seen to stand still, by this process's clock (hosts' clocks differ)."""

    def __init__(self) -> None:
        self._last: Holder | None = None
        self._since_s = 0.0

    def seconds(self, holder: Holder) -> float:
        """Return for how long the holder was seen with the beat that it has now; 0 when it is new."""
        now_s = time.monotonic()
        if holder != self._last:
            self._last, self._since_s = holder, now_s
        return now_s - self._since_s


def _lock(file: int) -> bool | None:
    """Lock without waiting: True when it worked, None when another process has it, False where there are no locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in TAKEN:
            return None
        if error.errno in NO_LOCKS_HERE:
            return False
        raise


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
