"""The run's log: `log.jsonl`, one JSON object an event, written by the main process alone; all else is a projection
of it."""

import contextlib
import errno
import json
import math
import os
import time
import warnings
from pathlib import Path
from typing import Any

from bigtrain.recipe.progress import Progress

UNREPEATABLE = ("time_s", "images_per_s", "data_wait_s", "memory_gib")
OF_A_SAVE = ("checkpoint", "preempted", "end")  # said of a step once it is saved, or while it is
BY_RANK = "_by_rank"  # ends the names of figures that are one a rank: times and memory, all of them


class RunLog:
    """Appends events to `log.jsonl`; on ranks other than the main one it writes nothing."""

    def __init__(self, path: Path, is_writer: bool) -> None:
        self.path = path
        self._started_s = time.monotonic()
        self._time_before_s = 0.0
        self._file = path.open("ab", buffering=0) if is_writer else None

    @property
    def elapsed_s(self) -> float:
        """Seconds of training time, over all starts of the run."""
        return self._time_before_s + time.monotonic() - self._started_s

    def event(self, event: str, progress: Progress, **figures: Any) -> None:
        """Append one line: the event, where the run stands, and figures named with their units.

        Non-finite figures become null: JSON has no word for them.
        """
        if self._file is None:
            return
        line = {
            "event": event,
            "images_seen": progress.images_seen,
            "step": progress.steps,
            "time_s": round(self.elapsed_s, 3),
            **{name: _plain(value) for name, value in figures.items()},
        }
        self._append((json.dumps(line, allow_nan=False) + "\n").encode())

    def _append(self, line: bytes) -> None:
        """Write a whole line or none: a full disk ends a run by its failed saves, and never tears a line."""
        assert self._file is not None
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(end)
            warnings.warn(
                f"{self.path} could not be written ({error}); this event is lost: {line[:200]!r}", stacklevel=3
            )

    def offset(self) -> int:
        """Return the length of the log in bytes; 0 on ranks that do not write."""
        return 0 if self._file is None else self._file.seek(0, os.SEEK_END)

    def sync(self) -> None:
        """Make what was logged durable: before the checkpoint that counts on it. Any thread may call it."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # the checkpoint will meet the same disk and say so
                os.fsync(self._file.fileno())

    def resume_at(self, offset: int, time_before_s: float, images_seen: int | None = None) -> None:
        """Cut the log back to a checkpoint's length, so that no event appears twice, and set its clock back.

        What was said of the save itself and of a stop right after it stays: it is not said again.

        Args:
            offset: bytes of the log that belong to the checkpoint.
            time_before_s: training time by then.
            images_seen: of the checkpoint; None: there is none.
        """
        self._time_before_s, self._started_s = time_before_s, time.monotonic()
        if self._file is None:
            return
        lines = self.path.read_bytes()[offset:].splitlines(keepends=True)
        kept = b"".join(line for line in lines if _is_of_save(line, images_seen))
        self._file.truncate(min(offset, self._file.seek(0, os.SEEK_END)))
        if kept:
            self._append(kept)

    def close(self) -> None:
        """Put everything on disk."""
        if self._file is not None:
            self._file.close()


def _is_of_save(line: bytes, images_seen: int | None) -> bool:
    try:
        event = json.loads(line)
    except ValueError:  # cut short by a kill
        return False
    return event["event"] in OF_A_SAVE and event["images_seen"] == images_seen


def comparable(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line without times, rates and memory: what is left is equal in equal runs."""
    return {name: value for name, value in line.items() if name not in UNREPEATABLE and not name.endswith(BY_RANK)}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return all events of a log, oldest first; a line that was cut short by a kill is left out."""
    events = []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events
