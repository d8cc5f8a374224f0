"""Who wrote this file: a process, told from a later one that got the same number."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

START_TICKS_FIELD = 22  # starttime of /proc/PID/stat, clock ticks after boot; proc_pid_stat(5)


@dataclass(frozen=True)
class ProcessStamp:
    """A process of some host. Numbers are reused, in containers at every start; number and start time are not."""

    host: str
    pid: int
    start_ticks: int

    @classmethod
    def own(cls) -> "ProcessStamp":
        """Return the stamp of this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> "ProcessStamp":
        """Return the stamp of a process that runs on this host."""
        return cls(socket.gethostname(), pid, _start_ticks(pid) or 0)

    @property
    def is_on_this_host(self) -> bool:
        """Whether it runs, or ran, here."""
        return self.host == socket.gethostname()

    @property
    def is_alive_here(self) -> bool:
        """Whether it runs on this host now; False for a process of another host, of which nothing is known."""
        return self.is_on_this_host and _start_ticks(self.pid) == self.start_ticks


def _start_ticks(pid: int) -> int | None:
    """Return when a process of this host started, None when it does not run (or only waits for its parent's notice)."""
    try:
        # The second field, the program's name in parentheses, may hold anything; the third is the state.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, start_ticks = fields[0], int(fields[START_TICKS_FIELD - 3])
    return None if state in "ZX" else start_ticks
