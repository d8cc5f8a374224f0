"""The members of a tar shard, without extracting: names and kinds are checked, nothing is ever run or unpacked."""

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from bigtrain.recipe.errors import DataError

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
LABEL_EXTENSION = "cls"
MAX_MEMBER_BYTES = 1 << 28  # no 8-bit image of 64 megapixels needs more
TAIL_BYTES = 1 << 20  # read at once of what comes after the members
CODE_EXTENSIONS = frozenset({"pyd", "pickle", "pkl", "pth", "pt"})  # webdataset's decode() would unpickle these


@dataclass(frozen=True)
class Member:
    """One file of a tar: key and extension as WebDataset splits its name, and where its bytes lie."""

    key: str
    extension: str
    offset: int
    size: int
    crc32: int
    data: bytes

    @property
    def last_split(self) -> tuple[str, str]:
        """Key and extension where only the last dot separates them, as in `n01.v2.jpg`."""
        stem, _, extension = f"{self.key}.{self.extension}".rpartition(".")
        return stem, extension


def members(path: Path) -> Iterator[Member]:
    """Yield the files of a tar in order; folders are passed over.

    Raises:
        DataError: not a tar, cut short, damaged, or a member that no data set needs (a link, a device, a pickle, a name
        that leaves the folder).
    """
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                if not entry.isdir():
                    yield _member(path, archive, entry)
            _check_end(path, archive.offset)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"shard {path} is no whole tar ({error}); copy it again from its source") from error


def _check_end(path: Path, end: int) -> None:
    """See that a tar ends where `tarfile` stopped, which takes a cut and a damaged header for the end.

    Raises:
        DataError: there is no end marker, or something after it, as behind a hole.
    """
    with path.open("rb") as stream:
        stream.seek(end)
        blocks = iter(partial(stream.read, TAIL_BYTES), b"")
        first = next(blocks, b"")
        if not first:
            fault = f"ends after {end:,} bytes without an end marker (cut short?)"
        elif first[: tarfile.BLOCKSIZE].strip(b"\0"):
            fault = f"has a damaged header at byte {end:,}"
        elif first.strip(b"\0") or any(block.strip(b"\0") for block in blocks):
            fault = f"goes on after an end marker at byte {end:,} (a hole, or tars that were joined)"
        else:
            return
    raise DataError(f"shard {path} {fault}; copy it again from its source")


def _member(path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Member:
    reason = refusal(entry)
    if reason:
        raise DataError(
            f"shard {path} has member {entry.name!r}, {reason}; do not trust this file, write shards with `bigtrain "
            "shards folder`"
        )
    stream = archive.extractfile(entry)
    assert stream is not None, entry.name
    data = stream.read()
    if len(data) != entry.size:
        raise DataError(f"shard {path} ends inside member {entry.name!r}; copy it again from its source")
    key, extension = split_name(entry.name)
    return Member(key, extension, entry.offset_data, entry.size, zlib.crc32(data), data)


def split_name(name: str) -> tuple[str, str]:
    """Return key and extension of a member as WebDataset splits its name, the last part of the extension in small
    letters."""
    path = PurePosixPath(name)
    key, _, extension = path.name.partition(".")
    return str(path.parent / key) if path.parent.parts else key, _lower_last(extension)


def _lower_last(extension: str) -> str:
    front, dot, last = extension.rpartition(".")
    return front + dot + last.lower()


def refusal(entry: tarfile.TarInfo) -> str | None:
    """Return why no data set needs a member (a phrase), or None."""
    name = PurePosixPath(entry.name)
    if entry.issparse() or entry.type == tarfile.GNUTYPE_SPARSE:
        return "which is sparse, so that what lies in the tar is not its content"
    if not entry.isreg():
        return "which is no regular file"
    if name.is_absolute() or ".." in name.parts:
        return "whose name leaves the folder"
    if entry.size > MAX_MEMBER_BYTES:
        return f"which claims {entry.size} bytes, more than an image needs ({MAX_MEMBER_BYTES})"
    if CODE_EXTENSIONS & set(name.name.lower().split(".")[1:]):
        return "which can run code when it is read"
    return None


def sample_members(path: Path) -> Iterator[tuple[Member, ...]]:
    """Yield the image of each sample of a tar that bigtrain wrote, or both images of each pair, in order."""
    first: tuple[Member, ...] = ()
    for member in members(path):
        side, _, extension = member.extension.rpartition(".")
        if extension not in IMAGE_EXTENSIONS or side not in ("", "a", "b"):
            continue
        if side == "a":
            first = (member,)
        else:
            yield (*first, member)
            first = ()
