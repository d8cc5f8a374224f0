"""The bytes of a shard from its first to its last, in blocks: never whole in memory, inflated where they are gzipped.

A source that fails is opened again and read on from where it broke off, as data/staging does with its copies.
"""

import itertools
import logging
import zlib
from collections.abc import Iterable, Iterator

from bigtrain.data.staging.fetch import ATTEMPTS
from bigtrain.data.staging.patience import Patience, pause_s
from bigtrain.data.staging.sources import Source, SourceError
from bigtrain.recipe.errors import DataError

INFLATED_BYTES = 1 << 20  # at most at once, whatever a small block claims to hold
GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 31  # zlib's word for a gzip header and trailer

log = logging.getLogger(__name__)


class InflateError(Exception):
    """Gzipped bytes are damaged."""


class ByteStream:
    """Blocks of bytes as one stream that is only read forward; `offset`: how many bytes were taken."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._held = memoryview(b"")
        self.offset = 0

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end."""
        taken = bytearray()
        for piece in self._pieces(count):
            taken += piece
        return bytes(taken)

    def skip(self, count: int) -> bool:
        """Pass over `count` bytes; False where the end came before."""
        before = self.offset
        for _ in self._pieces(count):
            pass
        return self.offset == before + count

    def _pieces(self, count: int) -> Iterator[memoryview]:
        while count > 0:
            if not self._held:
                block = next(self._blocks, None)
                if block is None:
                    return
                self._held = memoryview(block)
            piece, self._held = self._held[:count], self._held[count:]
            self.offset += len(piece)
            count -= len(piece)
            yield piece


def blocks_of(source: Source, name: str, patience: Patience) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks; a source that breaks off is read on from there, a bounded number of times.

    Raises:
        DataError: it is missing, or failed several times in a row without a byte more.
    """
    received = failures = 0
    while True:
        known = received  # what came before a failure comes again
        try:
            for block in source.read(name):
                patience.moved()
                fresh = block[known:]
                known = max(0, known - len(block))
                if fresh:
                    received, failures = received + len(fresh), 0
                    yield fresh
            return
        except SourceError as error:
            failures += 1
            place = f"{source.where}/{name}"
            if error.is_final or failures == ATTEMPTS:
                after = f" after {failures} attempts" if failures > 1 else ""
                raise DataError(
                    f"{place} could not be read{after}: {error}; see that data.shards names shards that are there, "
                    "then resume"
                ) from error
            wait_s = pause_s(failures)
            log.warning("%s: attempt %d of %d: %s; again in %.1f s", place, failures, ATTEMPTS, error, wait_s)
        patience.sleep(wait_s)


def inflated(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Return the same bytes, or what they hold where they are gzip's.

    Raises:
        InflateError: they are gzip's and damaged (while they are read).
    """
    head = b""
    while len(head) < len(GZIP_MAGIC) and (block := next(blocks, b"")):
        head += block
    whole = itertools.chain([head], blocks)
    return _inflate(whole) if head.startswith(GZIP_MAGIC) else whole


def _inflate(blocks: Iterable[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(wbits=GZIP_WINDOW)
    try:
        for block in blocks:
            rest = block
            while rest:
                if inflate.eof:  # gzip allows several files in a row, and zeros after the last
                    rest = rest.lstrip(b"\0")
                    inflate = zlib.decompressobj(wbits=GZIP_WINDOW) if rest else inflate
                    continue
                yield inflate.decompress(rest, INFLATED_BYTES)
                rest = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        if not inflate.eof:
            yield inflate.flush()
    except zlib.error as error:
        raise InflateError(str(error)) from error
