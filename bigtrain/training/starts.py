"""RUN/starts.json: every start of a run, where it began and how it ended, so that a job which crashes again and again
is not started for ever.

A job that SLURM restarts is refused once three starts in a row have left no newer checkpoint. Only starts of one job
count, each of them a restart of the one before: whoever starts by hand has looked at what happened.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from bigtrain.engine.checkpoints.files import committed
from bigtrain.engine.processes.slurm import job_key
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import EXIT_BUG, EXIT_DONE, EXIT_REQUEUE, BigtrainError, NoProgressError, RankLostError
from bigtrain.sampling.files import written_aside
from bigtrain.training.status import EXIT_INTERRUPTED

LEDGER = "starts.json"
MAX_FRUITLESS = 3  # starts in a row without a newer checkpoint
KEPT = 1000  # starts that the ledger holds; years of them
CRASHES = {EXIT_BUG, RankLostError.exit_status}  # a library's error on a bad node looks like our bug
FIRST_SIGNAL = 128  # shells and srun report a process that was killed by signal N as 128 + N


@dataclass(frozen=True)
class Start:
    """One start of a run."""

    job: str | None
    """SLURM's job, ARRAYJOB_TASK in an array; None outside SLURM."""
    restart: int
    """How often SLURM had restarted the job by then."""
    images_seen: int
    """Of the newest checkpoint at the start; 0 without any."""
    since: str
    """When, as ISO 8601 in UTC."""
    ended: str | None = None
    """How, in words; None while it runs, and for good if it was killed."""
    exit_status: int | None = None
    """The status it left with; None as above."""

    @classmethod
    def now(cls, folder: Path, environment: Mapping[str, str]) -> "Start":
        """Return the start that this process is."""
        return cls(
            job=job_key(environment),
            restart=int(environment.get("SLURM_RESTART_COUNT", "0")),
            images_seen=max(committed(folder / "checkpoints"), default=0),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def is_same_as(self, other: "Start") -> bool:
        """Whether both are one start of one SLURM job."""
        return self.job is not None and (self.job, self.restart) == (other.job, other.restart)


def fruitless(ledger: Sequence[Start], own: Start) -> list[Start]:
    """Return the starts just before `own`, newest first, of which it is a restart and which left no newer checkpoint
    than there is."""
    row: list[Start] = []
    later = own
    for start in reversed(ledger):
        is_restarted = own.job is not None and start.job == own.job and start.restart < later.restart
        if not is_restarted or start.images_seen < own.images_seen or start.exit_status == EXIT_DONE:
            break
        row.append(start)
        later = start
    return row


def check_progress(folder: Path, ledger: Sequence[Start], own: Start) -> None:
    """Refuse a start after too many that came to nothing.

    Raises:
        NoProgressError: three of them, with how the last one ended.
    """
    row = fruitless(ledger, own)
    if len(row) >= MAX_FRUITLESS:
        raise NoProgressError(
            f"{folder}: {len(row)} starts of job {own.job} in a row came no further than the checkpoint at "
            f"{own.images_seen:,} images, and the last one {row[0].ended or 'was killed before it could say why'}; "
            "remove the cause and submit it anew, or start it by hand"
        )


def read_ledger(folder: Path) -> list[Start]:
    """Return all starts, oldest first; none where there is no ledger, or none that can be read."""
    try:
        return [Start(**entry) for entry in json.loads((folder / LEDGER).read_text())]
    except (FileNotFoundError, ValueError, TypeError):  # edited by hand: counting begins anew
        return []


def write_ledger(folder: Path, ledger: Sequence[Start]) -> None:
    """Replace the ledger; a disk that is full or away costs the entry, not the run."""
    text = json.dumps([asdict(start) for start in ledger[-KEPT:]], indent=1)
    with contextlib.suppress(OSError), written_aside(folder / LEDGER) as stream:
        stream.write(f"{text}\n".encode())


def is_crash(exit_status: int) -> bool:
    """Whether a start that ended so may go better the next time, on another node: what a user has to put right, data
    that is damaged and a run that has diverged will not."""
    return exit_status in CRASHES or (exit_status > FIRST_SIGNAL and exit_status != EXIT_INTERRUPTED)


def after_crash(folder: Path, exit_status: int, environment: Mapping[str, str] = os.environ) -> int:
    """Note in the ledger that this job's training ended with `exit_status`, if it did not do so itself, and say whether
    to start it again; for the batch script, outside the run.

    Returns:
        0: start it again. Otherwise the status that the job ends with: the rank's that said most about the cause.

    Raises:
        NoProgressError: one more start would be the fourth that comes to nothing.
    """
    ledger, own = read_ledger(folder), Start.now(folder, environment)
    if not ledger or not ledger[-1].is_same_as(own):  # it did not come as far as its own entry
        ledger.append(replace(own, ended="ended before training began", exit_status=exit_status))
    elif ledger[-1].ended is None:
        ledger[-1] = replace(ledger[-1], ended=f"was killed (exit status {exit_status})", exit_status=exit_status)
    write_ledger(folder, ledger)
    for status in (ledger[-1].exit_status, exit_status):  # the main process's own, and the largest of all tasks'
        if status not in (None, EXIT_DONE, EXIT_REQUEUE) and not is_crash(status):
            return status
    check_progress(folder, ledger, replace(own, restart=own.restart + 1))
    return EXIT_DONE


class Starts:
    """This start's entry in the ledger, written by the main process inside the run folder's lock:
    `with Starts(folder, ranks) as starts: ...; starts.end(exit_status)`."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self._folder, self._ranks = folder, ranks

    def __enter__(self) -> "Starts":
        self._ranks.on_main(self._begin)
        return self

    def end(self, exit_status: int) -> None:
        """Say that the start ended as it should."""
        self._note("was done" if exit_status == EXIT_DONE else "was stopped and saved", exit_status)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BigtrainError):
            self._note(f"failed: {error}", error.exit_status)
        elif isinstance(error, Exception):
            self._note(f"failed: {type(error).__name__}: {error}", EXIT_BUG)
        elif error is not None:
            self._note("was interrupted", EXIT_INTERRUPTED)

    def _begin(self) -> None:
        ledger, own = read_ledger(self._folder), Start.now(self._folder, os.environ)
        check_progress(self._folder, ledger, own)
        write_ledger(self._folder, [*ledger, own])

    def _note(self, words: str, exit_status: int) -> None:
        if self._ranks.is_main:
            *before, own = read_ledger(self._folder) or [Start.now(self._folder, os.environ)]
            write_ledger(self._folder, [*before, replace(own, ended=words, exit_status=exit_status)])
