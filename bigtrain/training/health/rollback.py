"""Back to the last good checkpoint with other noise, in the running processes and a bounded number of times.

Data order and weights are the checkpoint's, bit for bit, and all draws differ by a new salt. Checkpoints of the
trajectory that failed are set aside. The log is cut back as a resume cuts it, so that its status lines stay one run;
what is cut goes to RUN/rollbacks/, and a `rollback` event stands in its place. All ranks act together.
"""

from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from bigtrain.engine.checkpoints.checkpoint import Checkpoint
from bigtrain.engine.checkpoints.rollbacks import Rollback, abandon_checkpoints, note_rollback, read_rollbacks
from bigtrain.recipe.errors import CheckpointError, DivergenceError
from bigtrain.sampling.files import written_aside
from bigtrain.training import saving
from bigtrain.training.health.alarms import newest_saved, tell
from bigtrain.training.health.watchdog import DivergedError
from bigtrain.training.run import Run
from bigtrain.training.state import restore


@runtime_checkable
class GoesBack(Protocol):
    """A hook that keeps something from step to step which a rollback makes wrong."""

    def went_back(self, run: Run) -> None:
        """Start anew from where the run stands now."""
        ...


def roll_back(run: Run, failure: DivergedError) -> None:
    """Put the run back to the newest checkpoint from before it went wrong, with a new salt; collective.

    Raises:
        DivergenceError: there is no such checkpoint, or the run has rolled back too often without getting past.
    """
    run.unread.clear()
    run.failed_saves = 0
    saving.forget(run)
    ranks, folder = run.launch.ranks, run.checkpoints.folder
    main = ranks.is_main
    target = ranks.broadcast_object(newest_saved(run, failure.onset_images) if main else None)
    entries = _entries(run)
    try:
        _refuse(run, failure, target, entries)
    except DivergenceError as error:
        tell(run, "diverged", {"reason": str(error)})
        raise
    assert target is not None, "refused above"
    salt = 1 + max([run.progress.salt, *(entry.salt for entry in entries)])
    entry = Rollback(run.progress.images_seen, target, salt, str(failure))
    ranks.on_main(lambda: _note(folder, entry))
    checkpoint = run.checkpoints.load_newest()
    assert checkpoint is not None, "load_newest raises where none verifies"
    run.write_aside("the log before a rollback", lambda: _keep_log(run, checkpoint, salt))
    restore(run, checkpoint)
    take_up_rollbacks(run)
    for hook in run.hooks:
        if isinstance(hook, GoesBack):
            hook.went_back(run)
    tell(run, "rollback", {"reason": entry.reason, "from_images": entry.from_images, "salt": salt})


def take_up_rollbacks(run: Run) -> None:
    """Give a run that was restored from a checkpoint the salt and the log lines of later rollbacks; collective.

    Without it, a run that stops between a rollback and its next checkpoint would come back to the noise that failed.
    """
    for entry in _entries(run):
        if entry.salt > run.progress.salt:
            run.progress = replace(run.progress, salt=entry.salt)
            figures = {"reason": entry.reason, "from_images": entry.from_images, "salt": entry.salt}
            run.log.event("rollback", run.progress, **figures)


def _entries(run: Run) -> list[Rollback]:
    ranks = run.launch.ranks
    read = ranks.together(lambda: read_rollbacks(run.checkpoints.folder) if ranks.is_main else [])
    return ranks.broadcast_object(read)


def _note(folder: Path, entry: Rollback) -> None:
    try:
        abandon_checkpoints(folder, entry.to_images)
        note_rollback(folder, entry)
    except OSError as error:
        raise CheckpointError(
            f"{entry.reason}, and {folder} cannot be written to go back ({error}); make room there"
        ) from error


def _refuse(run: Run, failure: DivergedError, target: int | None, entries: list[Rollback]) -> None:
    """Raise where the run may not roll back: a run gets past a failure by a good checkpoint beyond it."""
    settings, way_out = run.recipe.watchdog, "lower the learning rates, or use precision: fp32, and start again"
    if settings.most_rollbacks == 0:
        raise DivergenceError(f"{failure}, and watchdog.most_rollbacks is 0; {way_out}")
    if target is None:
        raise DivergenceError(
            f"{failure}, and no checkpoint from before that is there to go back to; {way_out}, with a smaller "
            "checkpoint.every_images"
        )
    tries = sum(entry.from_images >= target for entry in entries)
    if tries >= settings.most_rollbacks:
        raise DivergenceError(
            f"{failure}, and {tries} rollbacks (the last one to {target:,} images) did not get past it; {way_out}"
        )


def _keep_log(run: Run, checkpoint: Checkpoint, salt: int) -> None:
    """Keep the lines that the log is about to lose."""
    lost = run.log.path.read_bytes()[checkpoint.record["log_bytes"] :]
    with written_aside(run.folder / "rollbacks" / f"{salt:03d}.jsonl") as stream:
        stream.write(lost)
