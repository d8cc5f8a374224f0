"""Where shards are copied from: a folder of a slow file system, or a URL of http(s), s3 or gs through fsspec.

A file is read in blocks, never whole. Departs from fsspec's usual openings in three ways: a file system is made by
name, so that no text of a recipe is ever taken for a chain of them; http is streamed, so that servers without ranges
serve as well; and a server that sends nothing for `STALL_S` counts as failed.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bigtrain.data.location import without_secrets
from bigtrain.recipe.errors import DataError

STALL_S = 30.0
BLOCK_BYTES = 1 << 20
RANGE_BYTES = 8 << 20  # of one request to an object store
TRY_AGAIN = (408, 425, 429)  # RFC 9110, 8470, 6585: the 4xx that may be gone the next time


class SourceError(Exception):
    """A file could not be read to its end; `is_final` where another attempt would fail alike."""

    def __init__(self, reason: str, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Source(Protocol):
    """A place that holds a folder of shards."""

    @property
    def where(self) -> str:
        """The place, for messages."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether it is read over a network by an asynchronous library."""
        ...

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file in blocks.

        Raises:
            SourceError: it is missing, or breaks off.
        """
        ...


@dataclass(frozen=True)
class FolderSource:
    """A folder of this machine's file systems."""

    folder: Path

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def is_remote(self) -> bool:
        """No: the kernel reads it, whatever lies behind."""
        return False

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file in blocks."""
        try:
            with (self.folder / name).open("rb", buffering=0) as stream:
                while block := stream.read(BLOCK_BYTES):
                    yield block
        except OSError as error:
            is_final = isinstance(error, (FileNotFoundError, PermissionError))
            raise SourceError(error.strerror or str(error), is_final) from error


@dataclass(frozen=True)
class UrlSource:
    """A folder under a URL."""

    where: str
    scheme: str

    @property
    def is_remote(self) -> bool:
        """Yes."""
        return True

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file in blocks."""
        try:
            with self._open(name) as stream:
                while block := stream.read(BLOCK_BYTES):
                    yield block
        except DataError:
            raise
        except Exception as error:  # each store's library has errors of its own, of no common class
            raise SourceError(_reason(error), _is_final(error)) from error

    def _open(self, name: str) -> Any:
        import fsspec

        # Made where it is used: a file system of fsspec does not outlive a fork, and keeps one instance a process.
        dialect = DIALECTS[self.scheme]
        system = fsspec.filesystem(self.scheme, **dialect.options())
        return system.open(f"{self.where}/{name}", "rb", **dialect.opening)


@dataclass(frozen=True)
class _Dialect:
    """How fsspec is told of timeouts and of reading in a stream or in ranges, by scheme."""

    modules: tuple[str, ...]
    extra: str | None
    options: Callable[[], dict[str, Any]]
    opening: dict[str, Any]


def _http_options() -> dict[str, Any]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=STALL_S, sock_read=STALL_S)
    # The environment may name proxies, and ~/.netrc credentials.
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}, "headers": {"Accept-Encoding": "identity"}}


def _s3_options() -> dict[str, Any]:
    return {"config_kwargs": {"connect_timeout": STALL_S, "read_timeout": STALL_S, "retries": {"max_attempts": 1}}}


_STREAM = {"block_size": 0, "size": 1}  # block_size 0: one stream; a size spares the request that would ask for it
_RANGES = {"block_size": RANGE_BYTES, "cache_type": "readahead"}
_HTTP = _Dialect(("aiohttp", "fsspec.implementations.http"), None, _http_options, _STREAM)
DIALECTS = {
    "http": _HTTP,
    "https": _HTTP,
    "s3": _Dialect(("s3fs",), "s3", _s3_options, _RANGES),
    "gs": _Dialect(("gcsfs",), "gs", lambda: {"timeout": STALL_S}, _RANGES),
}


def load_libraries(scheme: str) -> None:
    """Import what a scheme needs, once for all processes forked from here; it takes a second.

    Raises:
        DataError: the package is not installed.
    """
    dialect = DIALECTS[scheme]
    try:
        for module in ("fsspec", *dialect.modules):
            importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"shards under {scheme}:// need the package {dialect.modules[0]}, which is not installed; pip install "
            f"'bigtrain[{dialect.extra}]'"
        ) from error


def _reason(error: Exception) -> str:
    status = getattr(error, "status", None)
    if status is not None:
        return f"the server answers {status} {getattr(error, 'message', '')}".rstrip()
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, TimeoutError):
        return f"nothing came for {STALL_S:g} s"
    text = without_secrets(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_final(error: Exception) -> bool:
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in TRY_AGAIN
    return isinstance(error, (FileNotFoundError, PermissionError))
