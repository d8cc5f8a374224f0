"""RUN/status.json: how a run stands, in words and as an exit status, because launchers return 1 whatever a rank's
status is."""

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from bigtrain.engine.heartbeat.roll_call import Verdict
from bigtrain.engine.processes.holder import Holder, read_holder
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import EXIT_BUG, EXIT_DONE, EXIT_REQUEUE, BigtrainError
from bigtrain.sampling.files import written_aside
from bigtrain.training.run import Run

EXIT_INTERRUPTED = 130  # as shells report Ctrl-C


class RunStatus:
    """Written by the main process: "running" on entering, what became of the run on leaving."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self._folder, self._is_main = folder, ranks.is_main
        self._holder: Holder | None = None

    def __enter__(self) -> "RunStatus":
        self._write({"state": "running", "exit_status": None})
        self._holder = read_holder(self._folder)
        return self

    def lose(self, verdict: Verdict) -> None:
        """Say that a rank is missing; where that is the main process, the others say it for it."""
        if verdict.rank == 0 and verdict.is_silent and self._has_folder():
            self._is_main = True
        self._write({"state": f"failed: {verdict.sentence}", "exit_status": verdict.exit_status})

    def _has_folder(self) -> bool:
        """Whether the folder is still this run's, although its main process is gone: a next start takes the lock."""
        holder = read_holder(self._folder)
        return holder is not None and self._holder is not None and holder.is_same_as(self._holder)

    def end(self, run: Run) -> None:
        """Say that the run is complete, or stopped and saved."""
        state, status = (
            ("complete", EXIT_DONE) if run.is_complete else ("stopped and saved; start it again", EXIT_REQUEUE)
        )
        reached = {"images_seen": run.progress.images_seen, "step": run.progress.steps}
        self._write({"state": state, "exit_status": status, **reached})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BigtrainError):
            self._write(failed(error))
        elif isinstance(error, KeyboardInterrupt):
            self._write({"state": "interrupted", "exit_status": EXIT_INTERRUPTED})
        elif error is not None:
            self._write({"state": f"failed: {type(error).__name__}: {error}", "exit_status": EXIT_BUG})

    def _write(self, status: dict[str, Any]) -> None:
        if self._is_main:
            write_status(self._folder, status)


def failed(error: BigtrainError) -> dict[str, Any]:
    """Return what status.json says after an error of this kind."""
    return {"state": f"failed: {error}", "exit_status": error.exit_status}


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Replace RUN/status.json."""
    with (
        contextlib.suppress(OSError),
        written_aside(folder / "status.json") as stream,
    ):  # a full disk has its own status
        stream.write((json.dumps(status, indent=1) + "\n").encode())
