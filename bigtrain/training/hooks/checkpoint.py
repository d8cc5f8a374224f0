"""Checkpoints by images and by minutes, and snapshots of averaged weights."""

import time

from bigtrain.recipe.progress import crossed
from bigtrain.training import saving
from bigtrain.training.run import Run
from bigtrain.training.snapshot import write_snapshot


class SaveCheckpoint:
    """Saves everything needed to go on. Runs after the other hooks, so that the log's length covers their events."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._is_time = False
        self._has_reserved = False

    def due(self, run: Run) -> bool:
        """When a save is due or one in flight is over, on every rank; and after the first step of a start."""
        self._is_time = self._is_time_to_save(run)
        return run.checkpoints.is_over() or self._is_time or not self._has_reserved

    def run(self, run: Run) -> None:
        """Take memory for saves; tell what became of the save in flight; begin the next where it is time."""
        if not self._has_reserved:
            saving.reserve(run)
            self._has_reserved = True
        if self._is_time:
            saving.begin(run)
            self._began_s = time.monotonic()
        else:
            saving.finish(run)

    def _is_time_to_save(self, run: Run) -> bool:
        """When `checkpoint.every_images` were crossed, or `every_minutes` passed on the main process's clock."""
        settings = run.recipe.checkpoint
        if crossed(settings.every_images, run.images_before_step, run.progress.images_seen):
            return True
        if settings.every_minutes is None:
            return False
        is_late = time.monotonic() - self._began_s >= settings.every_minutes * 60
        return run.launch.ranks.broadcast_object(is_late)


class SaveSnapshot:
    """Writes RUN/snapshots/<images>.safetensors on the main process."""

    def due(self, run: Run) -> bool:
        """When `snapshots.every_images` were crossed, and at the end."""
        return (
            crossed(run.recipe.snapshots.every_images, run.images_before_step, run.progress.images_seen) or run.is_done
        )

    def run(self, run: Run) -> None:
        """Write."""
        run.settle()
        run.write_aside("a snapshot", lambda: write_snapshot(run))
