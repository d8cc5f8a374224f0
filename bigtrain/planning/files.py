"""Files that a verb writes for people to keep: none is replaced by other content unasked."""

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
    """Write a file, whatever was there.

    Raises:
        UsageError: it cannot be written.
    """
    check_target(path)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be written: {error.strerror}; name another file")
