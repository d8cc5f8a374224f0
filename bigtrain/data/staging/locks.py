"""Locks between processes of a node that a killed holder cannot leave behind: the kernel drops them with it."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bigtrain.data.staging.patience import POLL_S, Patience

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


@contextmanager
def locked(path: Path, patience: Patience | None) -> Iterator[int | None]:
    """Hold a lock file, and give its descriptor; with no patience give None where another process holds it.

    The file stays: one that is deleted could be held twice.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        while not try_lock(descriptor):
            if patience is None:
                yield None
                return
            patience.sleep(POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)
