"""Locks between processes of a node that a killed holder cannot leave behind: the kernel drops them with it."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bigtrain.data.staging.patience import Patience

NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def try_lock(descriptor: int) -> bool:
    """Lock an open file if nobody else has; true also where the file system has no locks, and files are only renamed
    into place whole."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS_HERE:
            return True
        raise


def has_locks(path: Path) -> bool:
    """Tell whether the file system that a file lies on has locks; the file is made where it is missing."""
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno in NO_LOCKS_HERE:
                return False
            raise
    return True


@contextmanager
def locked(path: Path, patience: Patience | None, traces: Callable[[], object] = lambda: None) -> Iterator[int | None]:
    """Hold a lock file, and give its descriptor; with no patience give None where another process holds it.

    The file stays: one that is deleted could be held twice.

    Args:
        path: the file; made where it is missing.
        patience: told of signs of life while the lock is waited for, which only its holder gives.
        traces: of the holder's work; that they change is such a sign.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        seen = traces()
        while not try_lock(descriptor):
            if patience is None:
                yield None
                return
            patience.poll()
            if (now := traces()) != seen:
                seen = now
                patience.moved()
        yield descriptor
    finally:
        os.close(descriptor)
