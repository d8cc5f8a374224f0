"""Files that appear whole or not at all: written aside, fsynced, renamed, and the folder fsynced."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bigtrain.recipe.errors import DataError

ASIDE = ".aside-"  # prefix of files that are not in force; a writer that holds the lock may delete them
LOCK_NAME = ".writer.lock"


@contextmanager
def write_aside(path: Path) -> Iterator[BinaryIO]:
    """Give a stream whose bytes become `path` in one step when the block ends, and never when it raises."""
    aside = path.with_name(ASIDE + path.name)
    try:
        with aside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    aside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames within a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder of shards for writing; the kernel lets go of it when the process dies, however it dies.

    Raises:
        DataError: another process writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                f"another process writes shards into {folder}; wait for it to end or choose another folder"
            ) from error
        yield
