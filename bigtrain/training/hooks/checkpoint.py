"""Checkpoints by images and by minutes, and snapshots of averaged weights."""

import time

from bigtrain.recipe.progress import crossed
from bigtrain.training.run import Run
from bigtrain.training.snapshot import write_snapshot
from bigtrain.training.state import save


class SaveCheckpoint:
    """Saves everything needed to go on. Runs after the other hooks, so that the log's length covers their events."""

    def __init__(self) -> None:
        self._saved_s = time.monotonic()

    def due(self, run: Run) -> bool:
        """When `checkpoint.every_images` were crossed, or `every_minutes` passed on the main process's clock."""
        settings = run.recipe.checkpoint
        if crossed(settings.every_images, run.images_before_step, run.progress.images_seen):
            return True
        if settings.every_minutes is None:
            return False
        is_late = time.monotonic() - self._saved_s >= settings.every_minutes * 60
        return run.launch.ranks.broadcast_object(is_late)

    def run(self, run: Run) -> None:
        """Save."""
        save(run)
        self._saved_s = time.monotonic()


class SaveSnapshot:
    """Writes RUN/snapshots/<images>.safetensors on the main process."""

    def due(self, run: Run) -> bool:
        """When `snapshots.every_images` were crossed, and at the end."""
        return (
            crossed(run.recipe.snapshots.every_images, run.images_before_step, run.progress.images_seen) or run.is_done
        )

    def run(self, run: Run) -> None:
        """Write."""
        if run.launch.ranks.is_main:
            write_snapshot(run)
