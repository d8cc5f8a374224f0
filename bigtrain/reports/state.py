"""How a run stands, in one word: from status.json, and from who holds the folder where that says "running"."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigtrain.engine.processes.holder import HOLDER_FILE, read_holder
from bigtrain.recipe.errors import EXIT_DONE, EXIT_REQUEUE, DivergenceError
from bigtrain.reports.reading import read_object

SILENT_S = 120.0  # a holder on another host beats every 5 s; hosts' clocks may differ by a minute
WORDS = {EXIT_DONE: "complete", EXIT_REQUEUE: "preempted", DivergenceError.exit_status: "diverged", 130: "interrupted"}


@dataclass(frozen=True)
class State:
    """How a run stands."""

    word: str
    """running, preempted, complete, diverged, interrupted, failed, dead (its process is gone and said nothing),
    unknown, or not started."""
    sentence: str = ""
    """What status.json says, or why the run counts as dead."""
    exit_status: int | None = None


def state_of(folder: Path, starts: list[dict[str, Any]], now_s: float | None = None) -> State:
    """Return how a run stands.

    Args:
        folder: of the run.
        starts: as `read_starts` gives them.
        now_s: seconds since 1970; None: now.
    """
    status = read_object(folder / "status.json")
    said, exit_status = str(status.get("state", "")), status.get("exit_status")
    if not status:
        return State("unknown" if (folder / "status.json").exists() else "not started")
    if isinstance(exit_status, int) and not isinstance(exit_status, bool):
        return State(WORDS.get(exit_status, "failed"), said, exit_status)
    if said != "running":
        return State("unknown", said)
    why_dead = _why_dead(folder, time.time() if now_s is None else now_s)
    if why_dead is None:
        return State("running", said)
    ended = starts[-1].get("ended") if starts else None
    return State("dead", str(ended or why_dead))


def _why_dead(folder: Path, now_s: float) -> str | None:
    """Return why a run that says to be running is not; None where it seems to be."""
    try:
        holder, beat_s = read_holder(folder), (folder / HOLDER_FILE).stat().st_mtime
    except OSError:
        holder = None
    if holder is None:
        return "says that it is running, but no process holds its folder"
    if holder.stamp.is_on_this_host:
        return None if holder.stamp.is_alive_here else f"{holder} is gone"
    silent_s = now_s - beat_s
    return f"{holder} has been silent for {silent_s:.0f} s" if silent_s > SILENT_S else None
