"""Whether a SLURM job that watches a run comes any further, so that it is not started for ever.

As of training (`training/starts.py`), three starts of one job in a row that came to nothing are enough: here, starts
that wrote no evaluation, whether the run stands still, is not there, or takes longer to judge than a job lasts.
RUN/watchers/job-<job>.json says which restart of the job wrote the last one. Outside SLURM nobody starts a watcher but
a person, and nothing is counted.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from bigtrain.engine.processes.lease import WATCHERS
from bigtrain.engine.processes.slurm import job_key
from bigtrain.recipe.errors import NoProgressError
from bigtrain.sampling.files import written_aside
from bigtrain.training.starts import MAX_FRUITLESS


class WatchStarts:
    """The starts of one job, which is this process's; the main process alone calls it."""

    def __init__(self, run_folder: Path, environment: Mapping[str, str] = os.environ) -> None:
        self._folder, self._job = run_folder, job_key(environment)
        self._restart = int(environment.get("SLURM_RESTART_COUNT", "0"))
        self._path = run_folder / WATCHERS / f"job-{self._job}.json"

    def check(self, is_over: bool) -> None:
        """Refuse a start after too many that came to nothing: this one, or where it `is_over` the next.

        Raises:
            NoProgressError: three of them.
        """
        fruitless = self._restart - self._last_fruitful() - (0 if is_over else 1)
        if self._job is not None and fruitless >= MAX_FRUITLESS:
            raise NoProgressError(
                f"{self._folder}: {fruitless} starts of job {self._job} in a row wrote no evaluation; see whether the "
                "run goes on and how long an evaluation takes, and submit the watcher anew"
            )

    def note(self) -> None:
        """Say that this start wrote an evaluation; a disk that refuses costs the note."""
        if self._job is not None and self._last_fruitful() != self._restart:
            with contextlib.suppress(OSError), written_aside(self._path) as stream:
                stream.write((json.dumps({"last_restart_with_an_evaluation": self._restart}) + "\n").encode())

    def done(self) -> None:
        """Remove what was noted: the job does not come again."""
        if self._job is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _last_fruitful(self) -> int:
        try:
            return int(json.loads(self._path.read_text())["last_restart_with_an_evaluation"])
        except (OSError, ValueError, TypeError, KeyError):  # none yet, or edited by hand
            return -1
