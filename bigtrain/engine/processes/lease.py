"""Leases: files by which processes beside a run say that they are at work in its folder, until they end or fall silent.

RUN/watchers/<name>.json holds the process (`holder`, whose beat changes every few seconds) and what it wants, as JSON.
Unlike the lock, any number may be held, and nobody waits for one. On the holder's own host the kernel says whether it
lives; elsewhere a beat that stood still for LEASE_SILENT_S says that it does not: file systems between hosts show a
change late.
"""

import contextlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from bigtrain.engine.processes.holder import Holder
from bigtrain.engine.processes.lock import BEAT_S, Silence
from bigtrain.sampling.files import written_aside

WATCHERS = "watchers"
LEASE_SILENT_S = 120.0

log = logging.getLogger(__name__)


class Lease:
    """A lease of this process: `with Lease(run_folder) as lease: lease.say(...)`."""

    def __init__(self, run_folder: Path, wants: Mapping[str, Any], beat_s: float = BEAT_S) -> None:
        """Name it; `with` takes it.

        Args:
            run_folder: of the run.
            wants: what others should know, as JSON values.
            beat_s: seconds between beats.
        """
        self._own = Holder.own()
        self.path = run_folder / WATCHERS / f"{self._own.host}-{self._own.pid}-{self._own.start_ticks}.json"
        self._wants = dict(wants)
        self._beat_s = beat_s
        self._changed = threading.Lock()
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        self._clear_up()
        self._write()
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._heart.join()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def say(self, **wants: Any) -> None:
        """Change what others should know; a disk that refuses is only logged."""
        self._wants |= wants
        self._try_to_write()

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_s):
            self._own = replace(self._own, beat=self._own.beat + 1)
            self._try_to_write()

    def _try_to_write(self) -> None:
        try:
            self._write()
        except OSError as error:  # a full disk or a network away for a while
            log.warning("the lease %s could not be written: %s", self.path, error)

    def _write(self) -> None:
        with self._changed, written_aside(self.path) as stream:
            stream.write((json.dumps({"holder": asdict(self._own), **self._wants}) + "\n").encode())

    def _clear_up(self) -> None:
        """Remove leases of processes that are known to be gone: of this host, and of earlier starts of this job."""
        for path, holder, _ in _leases(self.path.parent):
            if holder.was_restarted_as(self._own) or (holder.stamp.is_on_this_host and not holder.stamp.is_alive_here):
                with contextlib.suppress(OSError):
                    path.unlink()


class Leases:
    """The leases of a run folder, as another process sees them from time to time."""

    def __init__(self, run_folder: Path, silent_s: float = LEASE_SILENT_S) -> None:
        self._folder, self._silent_s = run_folder / WATCHERS, silent_s
        self._silences: dict[Path, Silence] = {}

    def living(self) -> list[tuple[Holder, dict[str, Any]]]:
        """Return who holds a lease now, and what each wants.

        One of another host that was not seen before counts as living: whether its beat moves shows when this is called
        again.
        """
        return [(holder, wants) for path, holder, wants in _leases(self._folder) if self._is_alive(path, holder)]

    def _is_alive(self, path: Path, holder: Holder) -> bool:
        if holder.stamp.is_on_this_host:
            return holder.stamp.is_alive_here
        return self._silences.setdefault(path, Silence()).seconds(holder) <= self._silent_s


def _leases(folder: Path) -> Iterator[tuple[Path, Holder, dict[str, Any]]]:
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text())
            holder = Holder(**content.pop("holder"))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # gone meanwhile, or not a lease
            continue
        yield path, holder, content
