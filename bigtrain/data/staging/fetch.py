"""One file from its source into an open stream: verified by size and sha256, tried again a bounded number of times."""

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from bigtrain.data.staging.beside import beside
from bigtrain.data.staging.patience import Patience, pause_s
from bigtrain.data.staging.sources import Source, SourceError
from bigtrain.recipe.errors import DataError

ATTEMPTS = 5

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A file by its content."""

    name: str
    """In its source."""
    sha256: str
    suffix: str
    bytes: int | None
    """None: not known; at most `max_bytes`."""
    max_bytes: int
    source: Source

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        return f"{self.source.where}/{self.name}"


def fetch(wanted: Wanted, stream: BinaryIO, patience: Patience) -> None:
    """Fill a stream with a file, in blocks, and fsync it.

    Raises:
        DataError: it could not be had whole and as its index describes it, after several attempts.
        OSError: the stream cannot be written.
    """

    def fill() -> bytes:
        _attempts(wanted.place, lambda: _fill(wanted, stream, patience), patience)
        return b""

    if wanted.source.is_remote:
        beside(fill, patience)
    else:
        fill()


def read_small(source: Source, name: str, max_bytes: int, patience: Patience) -> bytes:
    """Return a small file that carries its own checksum, such as an index.

    Raises:
        DataError: it could not be had after several attempts, or is larger than anything of its kind.
    """

    def read() -> bytes:
        data = bytearray()
        for block in source.read(name):
            data += block
            if len(data) > max_bytes:
                raise SourceError(f"it has over {max_bytes} bytes, which is no index", is_final=True)
            patience.moved()
        return bytes(data)

    return beside(lambda: _attempts(f"{source.where}/{name}", read, patience), patience)


def _attempts(place: str, once: Callable[[], Result], patience: Patience) -> Result:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return once()
        except SourceError as error:
            if error.is_final or attempt == ATTEMPTS:
                after = f" after {attempt} attempts" if attempt > 1 else ""
                raise DataError(
                    f"{place} could not be fetched{after}: {error}; see that data.shards names a folder that "
                    "`bigtrain shards` has written and that it is whole, then start again"
                ) from error
            wait_s = pause_s(attempt)
            log.warning("%s: attempt %d of %d failed: %s; again in %.1f s", place, attempt, ATTEMPTS, error, wait_s)
        patience.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def _fill(wanted: Wanted, stream: BinaryIO, patience: Patience) -> None:
    stream.seek(0)
    os.utime(stream.fileno())  # a sign of life for those who wait for it
    digest, received = hashlib.sha256(), 0
    for block in wanted.source.read(wanted.name):
        received += len(block)
        if received > wanted.max_bytes:
            raise SourceError(f"more came than the {wanted.max_bytes} bytes that the index allows")
        digest.update(block)
        stream.write(block)
        patience.moved()
    if wanted.bytes is not None and received != wanted.bytes:
        raise SourceError(f"{received} bytes came where the index says {wanted.bytes}")
    if digest.hexdigest() != wanted.sha256:
        raise SourceError(f"sha256 {digest.hexdigest()[:12]} came where the index says {wanted.sha256[:12]}")
    stream.truncate(received)
    stream.flush()
    os.fsync(stream.fileno())
