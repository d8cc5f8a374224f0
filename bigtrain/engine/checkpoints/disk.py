"""Durable file operations: what they have done is still done after a power cut, and each of them can be watched.

Every call that changes the disk goes through OPERATIONS, so that tests count them, stop the process at each in turn, or
have one fail; those of saves are sites of `faults` too. A file is durable once it is written and fsynced and the folder
that names it is fsynced too.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigtrain.engine import faults

WRITE_BYTES = 16 * 2**20  # one write call; bounds what a signal can interrupt and what sha256 takes at a time
READ_BYTES = 16 * 2**20

OPERATIONS: dict[str, Callable[..., Any]] = {
    "mkdir": os.mkdir,
    "open": os.open,
    "write": os.write,
    "fsync": os.fsync,
    "close": os.close,
    "rename": os.rename,
    "unlink": os.unlink,
    "rmdir": os.rmdir,
}


_written = {"bytes": 0}


def written_bytes() -> int:
    """Return how many bytes this process has written through here; any thread may ask how a save comes on."""
    return _written["bytes"]


@dataclass(frozen=True)
class FileFacts:
    """What a file holds, told without reading it: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, durably."""
    if not path.parent.is_dir():
        make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        OPERATIONS["mkdir"](path)
        sync_folder(path.parent)


def write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> FileFacts:
    """Write a new file, fsync it and return its facts, hashed from what was handed in, not from what the disk has.

    Raises:
        OSError: the file exists, the disk is full or broken; what is there of it is for the caller to remove.
    """
    digest, size = hashlib.sha256(), 0
    file = OPERATIONS["open"](path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            size += len(view)
            while len(view):
                piece = view[:WRITE_BYTES]
                faults.reach("checkpoint.write")
                written = OPERATIONS["write"](file, faults.spoil_bytes("checkpoint.write", piece))
                _written["bytes"] += written
                digest.update(piece[:written])
                view = view[written:]
        faults.reach("checkpoint.fsync")
        OPERATIONS["fsync"](file)
    finally:
        OPERATIONS["close"](file)
    return FileFacts(size, digest.hexdigest())


def read_file(path: Path) -> tuple[bytearray, FileFacts]:
    """Return a file's bytes and their facts: what was hashed is what is handed out."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        content = bytearray(os.fstat(file.fileno()).st_size)
        view, filled = memoryview(content), 0
        while filled < len(content):
            num_read = file.readinto(view[filled : filled + READ_BYTES])
            if not num_read:
                break
            digest.update(view[filled : filled + num_read])
            filled += num_read
    view.release()
    del content[filled:]
    return content, FileFacts(filled, digest.hexdigest())


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    file = OPERATIONS["open"](path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        OPERATIONS["fsync"](file)
    finally:
        OPERATIONS["close"](file)


def rename(old: Path, new: Path) -> None:
    """Give a file or folder another name in its folder, durably."""
    faults.reach("checkpoint.rename")
    OPERATIONS["rename"](old, new)
    sync_folder(new.parent)


def remove_file(path: Path) -> None:
    """Remove a file, durably."""
    OPERATIONS["unlink"](path)
    sync_folder(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder with all it holds, or a file; links are removed, never followed. Nothing there: nothing happens.

    Raises:
        OSError: something could not be removed.
    """
    faults.reach("checkpoint.prune")
    if path.is_symlink() or path.is_file():
        OPERATIONS["unlink"](path)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            OPERATIONS["unlink"](os.path.join(folder, name))
        for entry in list(os.scandir(folder)):
            (OPERATIONS["unlink"] if entry.is_symlink() else OPERATIONS["rmdir"])(entry.path)
    if path.exists():
        OPERATIONS["rmdir"](path)
