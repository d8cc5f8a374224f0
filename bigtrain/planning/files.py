"""Files that a verb writes for people to keep: none is replaced by other content unasked."""

import os
from collections.abc import Sequence
from pathlib import Path

from bigtrain.recipe.errors import UsageError


def check_target(path: Path) -> None:
    """Refuse a file that cannot be written where it is asked for, before work is spent on what it is to hold.

    Raises:
        UsageError: it is a folder, or its folder does not exist.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder; name a file, in it or elsewhere")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}; make it, or name another file")
    except OSError as error:
        raise _unusable(path, error) from error


def check_ending(option: str, path: Path, endings: Sequence[str]) -> None:
    """Refuse a file of another kind, which may be somebody's recipe or log, before it is replaced.

    Raises:
        UsageError: the name does not end so.
    """
    if path.suffix.lower() not in endings:
        raise UsageError(f"{option} {path}: its name has to end in {' or '.join(endings)}; name such a file")


def check_new(path: Path, content: str, force: bool) -> None:
    """Refuse to write a file where another one is.

    Raises:
        UsageError: there is one with other content, and `force` is not given; or see `check_target`.
    """
    check_target(path)
    try:
        differs = path.is_file() and path.read_bytes() != content.encode()
    except OSError as error:
        raise _unusable(path, error) from error
    if differs and not force:
        raise UsageError(f"{path} is there and differs; name another file, or add --force to replace it")


def write_new(path: Path, content: str, force: bool) -> None:
    """Write a file unless another one is there.

    Raises:
        UsageError: see `check_new`; or it cannot be written.
    """
    check_new(path, content, force)
    replace(path, content)


def replace(path: Path, content: str) -> None:
    """Write a file, whatever was there.

    Raises:
        UsageError: it cannot be written.
    """
    replace_bytes(path, content.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file, whatever was there; a reader sees the old one or the whole new one.

    Raises:
        UsageError: it cannot be written; what was there is as it was.
    """
    check_target(path)
    aside = path.with_name(f".{path.name}.aside-{os.getpid()}")
    try:
        if path.exists() and not path.is_file():  # a terminal or a pipe
            path.write_bytes(content)
            return
        try:
            aside.write_bytes(content)
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be written: {error.strerror}; name another file")
