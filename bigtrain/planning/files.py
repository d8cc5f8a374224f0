"""Files that a verb writes for people to keep: none is replaced by other content unasked."""

from pathlib import Path

from bigtrain.recipe.errors import UsageError


def write_new(path: Path, content: str, force: bool) -> None:
    """Write a file unless another one is there.

    Raises:
        UsageError: there is one with other content, and `force` is not given; or the folder does not exist.
    """
    if not force and path.exists() and path.read_text() != content:
        raise UsageError(f"{path} is there and differs; name another file, or add --force to replace it")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it, or name another file")
    path.write_text(content)
