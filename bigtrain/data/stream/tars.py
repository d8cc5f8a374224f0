"""The members of a tar that is read once and forward: names and kinds are checked as `data/tar.py` does, nothing is
unpacked or run, and what no sample needs is passed over.

Departs from WebDataset, whose reader (`tarfile` in its stream mode) takes a damaged header and a cut for the end of the
tar, keeps a record of every member that it has seen, and believes any size. Here a tar ends with its end marker or is
damaged, and memory does not grow with it.
"""

import tarfile
import zlib
from collections.abc import Callable, Iterator

from bigtrain.data.stream.bytes import ByteStream, InflateError
from bigtrain.data.tar import Member, refusal, split_name

BLOCK_BYTES = tarfile.BLOCKSIZE
MOST_TAIL_BYTES = 1 << 20  # of zeros after the end marker: tar fills up a record, 10,240 bytes unless it is told
MOST_EXTENSION_BYTES = 1 << 16  # of a long name or of pax records; file systems stop at 4,096 a path
MOST_EXTENSIONS = 16  # before one member; tars that are written have up to two
LONG_NAME, LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
EXTENSIONS = (LONG_NAME, LONG_LINK, tarfile.XGLTYPE, *PAX)


class TarFaultError(Exception):
    """A tar is damaged or holds what no data set needs; says what (a phrase)."""


def stream_members(stream: ByteStream, most_bytes: Callable[[str], int]) -> Iterator[Member]:
    """Yield the files of a tar in order, those without content of which nothing is wanted.

    Args:
        stream: of the tar, at its start.
        most_bytes: how many bytes to read at most of a file with this extension; a longer one comes without its data.

    Raises:
        TarFaultError: it is cut short or damaged, or has a member that is refused; what came before it is whole.
    """
    try:
        while (entry := _entry(stream)) is not None:
            if not entry.isdir():  # of a folder, a size says nothing of bytes behind its header
                yield _member(stream, entry, most_bytes)
    except InflateError as error:
        raise TarFaultError(f"is damaged within its gzip data ({error})") from error


def _member(stream: ByteStream, entry: tarfile.TarInfo, most_bytes: Callable[[str], int]) -> Member:
    is_sparse = entry.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in entry.pax_headers)
    reason = "which is sparse" if is_sparse else refusal(entry)
    if reason:
        raise TarFaultError(f"has member {entry.name[:200]!r}, {reason}; do not trust this file")
    key, extension = split_name(entry.name)
    offset = stream.offset
    if 0 < entry.size <= most_bytes(extension):
        data = stream.read(entry.size)
        is_whole = len(data) == entry.size
    else:
        data, is_whole = b"", stream.skip(entry.size)
    if not is_whole or not stream.skip(-entry.size % BLOCK_BYTES):
        raise _cut(stream)
    return Member(key, extension, offset, entry.size, zlib.crc32(data), data)


def _entry(stream: ByteStream) -> tarfile.TarInfo | None:
    """Return the next member's header, with what extension headers before it say; None at the end marker."""
    name, pax = "", dict[str, str]()
    extensions = 0
    while True:
        at = stream.offset
        block = stream.read(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            raise _cut(stream)
        if not block.strip(b"\0"):
            _check_tail(stream)
            return None
        try:
            entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")  # type: ignore[arg-type]
            if entry.type not in EXTENSIONS:
                entry.size = int(pax.get("size", entry.size))
            if entry.size < 0:
                raise ValueError("a size under 0")
            if entry.type not in EXTENSIONS:
                entry.name, entry.pax_headers = pax.get("path", name) or entry.name, pax
                return entry
            extensions += 1
            if extensions > MOST_EXTENSIONS:
                raise ValueError(f"over {MOST_EXTENSIONS} extensions before one member")
            data = _extension(stream, entry)
            if entry.type == LONG_NAME:
                name = data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            elif entry.type in PAX:
                pax |= _pax(data)
        except (tarfile.TarError, ValueError) as error:
            raise TarFaultError(f"has a damaged header at byte {at:,} ({error})") from error


def _extension(stream: ByteStream, entry: tarfile.TarInfo) -> bytes:
    if entry.size > MOST_EXTENSION_BYTES:
        raise ValueError(f"{entry.size} bytes of extensions, more than a name needs ({MOST_EXTENSION_BYTES})")
    data = stream.read(entry.size)
    if len(data) < entry.size or not stream.skip(-entry.size % BLOCK_BYTES):
        raise _cut(stream)
    return data


def _pax(data: bytes) -> dict[str, str]:
    """Return pax records, each `LENGTH KEY=VALUE` and a line's end (POSIX 1003.1, pax, "Extended Header")."""
    found = {}
    while data:
        length = data.partition(b" ")[0]
        end = int(length)
        record = data[len(length) + 1 : max(end, 0)]
        if not record.endswith(b"\n"):
            raise ValueError("pax records of another length than they say")
        key, _, value = record[:-1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[end:]
    return found


def _check_tail(stream: ByteStream) -> None:
    """See that nothing but zeros comes after the end marker; a hole in a tar looks like one."""
    at = stream.offset - BLOCK_BYTES
    if stream.read(MOST_TAIL_BYTES).strip(b"\0"):
        raise TarFaultError(f"goes on after an end marker at byte {at:,} (a hole, or tars that were joined)")


def _cut(stream: ByteStream) -> TarFaultError:
    if not stream.offset:
        return TarFaultError("is empty")
    return TarFaultError(f"ends after {stream.offset:,} bytes without an end marker (cut short?)")
