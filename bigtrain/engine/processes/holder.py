"""RUN/.lock.json: which process says that it writes a run folder. Read without torch, by `bigtrain ls` too."""

import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bigtrain.engine.processes.identity import ProcessStamp

HOLDER_FILE = ".lock.json"


@dataclass(frozen=True)
class Holder:
    """What RUN/.lock.json says."""

    host: str
    pid: int
    start_ticks: int
    job: str
    restart: str
    since: str
    beat: int = 0

    @classmethod
    def own(cls) -> "Holder":
        """Return what this process writes."""
        return cls(
            **asdict(ProcessStamp.own()),
            job=os.environ.get("SLURM_JOB_ID", ""),
            restart=os.environ.get("SLURM_RESTART_COUNT", "0"),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @property
    def stamp(self) -> ProcessStamp:
        """The process."""
        return ProcessStamp(self.host, self.pid, self.start_ticks)

    def is_same_as(self, other: "Holder") -> bool:
        """Whether both are one process, whatever its beat."""
        return replace(self, beat=0) == replace(other, beat=0)

    def was_restarted_as(self, other: "Holder") -> bool:
        """Whether `other` is a later start of the same SLURM job; SLURM starts it once the earlier one is gone."""
        return bool(self.job) and self.job == other.job and self.restart != other.restart

    def __str__(self) -> str:
        job = f" of job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job} since {self.since}"


def read_holder(folder: Path) -> Holder | None:
    """Return who says to hold a run folder; None where nobody does, or where what is written is not readable."""
    try:
        return Holder(**json.loads((folder / HOLDER_FILE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
