"""A folder of this node's disk that keeps copied shards by their content, shared by all processes and runs of the node.

A file is named after its sha256, so equal shards of several data sets are one, and names cannot clash. It is copied
under a lock of its own, aside, and renamed into place once it is verified. When room is short, the shards that were
used longest ago go first; what any living run has said that it needs (`leases`) stays.
"""

import contextlib
import errno
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from bigtrain.data.disk import ASIDE, sync_folder
from bigtrain.data.location import SHARD_SUFFIX
from bigtrain.data.staging.fetch import Wanted, fetch
from bigtrain.data.staging.locks import has_locks, locked, try_lock
from bigtrain.data.staging.patience import Patience
from bigtrain.data.writer import file_sha256
from bigtrain.recipe.errors import DataError

FOLDER_NAME = "bigtrain-shards"  # below data.cache_dir, so that nothing else there is ever deleted
FULL = (errno.ENOSPC, errno.EDQUOT)
GIB = 1 << 30
DEAD_S = 24 * 3600.0  # where there are no locks: what has not changed for so long is of a process that is gone

log = logging.getLogger(__name__)


class Cache:
    """Copies of files, each there whole or not at all."""

    def __init__(self, cache_dir: Path, limit_bytes: int | None, patience: Patience) -> None:
        """Make the folder where it is missing, and remove what killed processes have left.

        Raises:
            DataError: it cannot be written.
        """
        self.folder = cache_dir / FOLDER_NAME
        self.limit_bytes = limit_bytes
        self.patience = patience
        self._locks, self._leases = self.folder / "locks", self.folder / "leases"
        self._room = self._locks / "room"
        try:
            for folder in (self._locks, self._leases):
                folder.mkdir(parents=True, exist_ok=True)
            self._has_locks = has_locks(self._room)
            self._remove_leftovers()
        except OSError as error:
            raise DataError(
                f"data.cache_dir: {cache_dir} cannot be written ({error.strerror}); name a folder of this node's disk"
            ) from error

    def path(self, wanted: Wanted) -> Path:
        """Return where a file is, or would be."""
        return self.folder / (wanted.sha256 + wanted.suffix)

    def has(self, wanted: Wanted) -> bool:
        """Tell whether a file is there, of its size; counts as a use of it."""
        path = self.path(wanted)
        try:
            is_there = wanted.bytes is None or path.stat().st_size == wanted.bytes
            if is_there:
                os.utime(path)
        except FileNotFoundError:
            return False
        return is_there

    def obtain(self, wanted: Wanted) -> Path:
        """Return a file's path, copied first where it is not there; it may be gone again where room is short.

        Raises:
            DataError: it cannot be copied, or there is no room for it.
        """
        with self._in_use():
            if not self.has(wanted):
                asked_s = time.time()
                with self._waited_for(wanted) as lock:
                    if not self.has(wanted):
                        _raise_failure(lock, asked_s)
                        self._copy(wanted, lock, must=True)
        return self.path(wanted)

    def prefetch(self, wanted: Wanted) -> bool:
        """Copy a file unless it is there, or another process copies it, or it has no room; tell whether it was copied.

        Raises:
            DataError: it cannot be copied.
        """
        with self._in_use():
            if self.has(wanted):
                return False
            with locked(self._lock_of(wanted), None) as lock:
                return lock is not None and not self.has(wanted) and self._copy(wanted, lock, must=False)

    def renew(self, wanted: Wanted) -> None:
        """Copy a file again that turned out damaged, unless another process has already.

        Raises:
            DataError: it cannot be copied.
        """
        asked_s = time.time()
        with self._in_use(), self._waited_for(wanted) as lock:
            path = self.path(wanted)
            with contextlib.suppress(FileNotFoundError):
                if file_sha256(path) == wanted.sha256:
                    return
            _raise_failure(lock, asked_s)
            log.warning("%s, the copy of %s, is damaged and is fetched again", path, wanted.place)
            path.unlink(missing_ok=True)
            self._copy(wanted, lock, must=True)

    def lease(self) -> "Lease":
        """Return what tells other processes of this one's needs, for as long as it lives."""
        with locked(self._room, self.patience):
            return Lease(self._leases / f"{os.uname().nodename}-{os.getpid()}-{time.monotonic_ns()}")

    def renew_lease(self, lease: "Lease", wanted: Iterable[Wanted]) -> None:
        """Say what this process needs from now on."""
        with locked(self._room, self.patience):
            lease.write(self.path(each).name for each in wanted)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"data.cache_dir: {self.folder} cannot be used any more ({error.strerror}); see that nothing clears it "
                "while a run reads from it"
            ) from error

    def _lock_of(self, wanted: Wanted) -> Path:
        return self._locks / wanted.sha256

    @contextlib.contextmanager
    def _waited_for(self, wanted: Wanted) -> Iterator[int]:
        """Hold a file's lock, once whoever copies it has done."""
        with locked(self._lock_of(wanted), self.patience, lambda: self._traces(wanted)) as lock:
            assert lock is not None
            yield lock

    def _traces(self, wanted: Wanted) -> list[tuple[str, int]]:
        """Return what a file being copied looks like: a copier that lives changes it."""
        found = []
        for path in self.folder.glob(f"{ASIDE}{wanted.sha256}*"):
            with contextlib.suppress(FileNotFoundError):
                found.append((path.name, path.stat().st_mtime_ns))
        return found

    def _copy(self, wanted: Wanted, lock: int, must: bool) -> bool:
        """Copy a file whose lock is held; False where it has no room and need not be there."""
        path = self.path(wanted)
        aside = self.folder / f"{ASIDE}{path.name}-{os.getpid()}"
        if path.exists():
            log.warning("%s, the copy of %s, has another size and is fetched again", path, wanted.place)
        try:
            if not self._reserve(aside, wanted, must):
                return False
            while not self._is_filled(aside, wanted):
                continue
            aside.replace(path)
            sync_folder(self.folder)
        except DataError as error:
            _note_failure(lock, str(error))
            raise
        except OSError as error:
            raise DataError(
                f"data.cache_dir: {wanted.name} ({wanted.max_bytes / GIB:.3g} GiB) cannot be copied to {self.folder} "
                f"({error.strerror}); make room there, or lower data.shuffle_window_shards"
            ) from error
        finally:
            aside.unlink(missing_ok=True)
        return True

    def _is_filled(self, aside: Path, wanted: Wanted) -> bool:
        """Fill a file; False where the disk was full and has room now."""
        try:
            with aside.open("r+b") as stream:
                fetch(wanted, stream, self.patience)
            return True
        except OSError as error:
            if error.errno not in FULL:
                raise
            with locked(self._room, self.patience):
                if not self._evict(wanted.max_bytes):
                    raise
            return False

    def _reserve(self, aside: Path, wanted: Wanted, must: bool) -> bool:
        """Make room for a file under the limit, and take it; without `must`, False where the limit leaves none."""
        with locked(self._room, self.patience):
            if self.limit_bytes is not None and wanted.suffix == SHARD_SUFFIX:
                over = self._used_bytes() + wanted.max_bytes - self.limit_bytes
                if over > 0 and self._evict(over, all_or_nothing=not must) < over:
                    if not must:
                        return False
                    log.warning(
                        "data.cache_gib: runs here need more than %.3g GiB in %s at once; it is exceeded for %s",
                        self.limit_bytes / GIB, self.folder, wanted.name,
                    )  # fmt: skip
            with aside.open("wb") as stream:
                stream.truncate(wanted.max_bytes)  # without blocks, but others count it
        return True

    def _used_bytes(self) -> int:
        return sum(facts.st_size for facts in _shards(self.folder).values())

    def _evict(self, needed_bytes: int, all_or_nothing: bool = False) -> int:
        """Delete the shards used longest ago, but none that a living run needs; return the bytes that are free now."""
        kept = self._leased()
        shards = {name: facts for name, facts in _shards(self.folder).items() if name.endswith(SHARD_SUFFIX)}
        victims, freed = [], 0
        for name in sorted(shards, key=lambda name: shards[name].st_mtime_ns):
            if freed < needed_bytes and name not in kept:
                victims.append(name)
                freed += shards[name].st_size
        if all_or_nothing and freed < needed_bytes:
            return 0
        for name in victims:
            (self.folder / name).unlink(missing_ok=True)
        return freed

    def _leased(self) -> set[str]:
        """Return the names that living processes have leased; leases of dead ones go."""
        names: set[str] = set()
        for path in self._leases.iterdir():
            with contextlib.suppress(FileNotFoundError), path.open("r+b") as stream:
                if try_lock(stream.fileno()) and self._is_dead(path):
                    path.unlink(missing_ok=True)
                else:
                    names |= set(stream.read().decode().split())
        return names

    def _remove_leftovers(self) -> None:
        """Remove files aside whose writer is gone, and leases of the dead."""
        for path in self.folder.glob(ASIDE + "*"):
            digest = path.name.removeprefix(ASIDE).partition(".")[0]
            with locked(self._locks / digest, None) as lock:
                if lock is not None and self._is_dead(path):
                    path.unlink(missing_ok=True)
        with locked(self._room, self.patience):
            self._leased()

    def _is_dead(self, path: Path) -> bool:
        """Tell whether a file whose lock was had is of a process that is gone."""
        with contextlib.suppress(FileNotFoundError):
            return self._has_locks or time.time() - path.stat().st_mtime > DEAD_S
        return True


class Lease:
    """The names of files that a process needs; dropped by the kernel when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try_lock(self._descriptor)

    def write(self, names: Iterable[str]) -> None:
        """Replace the names; whoever holds the lock over room may."""
        data = "\n".join(names).encode()
        os.pwrite(self._descriptor, data, 0)
        os.truncate(self._descriptor, len(data))

    def end(self) -> None:
        """Need nothing any more."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _shards(folder: Path) -> dict[str, os.stat_result]:
    """Return what is known of the shards of a folder, those aside too; files may come and go meanwhile."""
    found = {}
    for entry in os.scandir(folder):
        if SHARD_SUFFIX in entry.name:
            with contextlib.suppress(FileNotFoundError):
                found[entry.name] = entry.stat()
    return found


def _note_failure(lock: int, sentence: str) -> None:
    """Leave word in a lock file for those who wait for the lock."""
    data = json.dumps([time.time(), sentence]).encode()
    os.pwrite(lock, data, 0)
    os.truncate(lock, len(data))


def _raise_failure(lock: int, asked_s: float) -> None:
    """Share the failure of whoever held the lock meanwhile, instead of failing as often and as long again."""
    with contextlib.suppress(ValueError):  # nothing was noted, or half of it
        failed_s, sentence = json.loads(os.pread(lock, 1 << 16, 0))
        if failed_s > asked_s:
            raise DataError(sentence)
