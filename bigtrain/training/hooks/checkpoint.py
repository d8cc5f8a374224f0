"""Checkpoints by images and by minutes, and snapshots of averaged weights."""

import json
import math
import time

from bigtrain.recipe.progress import crossed
from bigtrain.training.run import Run
from bigtrain.training.snapshot import write_snapshot
from bigtrain.training.state import save

BEST = "best evaluation so far: "


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
        """Save, and pin what evaluated best so far."""
        save(run)
        run.write_aside("the pins of the best checkpoints", lambda: pin_best(run))
        self._saved_s = time.monotonic()


def pin_best(run: Run) -> None:
    """Keep the `keep_best` saved checkpoints of the smallest Frechet distance from being pruned, and let go of
    others."""
    saved = set(run.checkpoints.saved())
    distances = {images: distance for images, distance in evaluated(run).items() if images in saved}
    best = sorted(distances, key=lambda images: (distances[images], images))[: run.recipe.checkpoint.keep_best]
    for images in best:
        run.checkpoints.pin(images, f"{BEST}{distances[images]:.6g}")
    for images, reason in run.checkpoints.pinned().items():
        if images not in best and reason.startswith(BEST):
            run.checkpoints.unpin(images)


def evaluated(run: Run) -> dict[int, float]:
    """Return the Frechet distance by images seen, of the recipe's first average and its newest protocol alone."""
    found: dict[str, dict[int, float]] = {}
    newest = ""
    for path in sorted((run.folder / "evaluations").glob("*.json")):
        record = json.loads(path.read_text())
        if record["protocol"]["sampling"]["average"] != run.recipe.ema[0].name:
            continue
        newest = path.stem.partition("-")[2]  # <images>-<protocol>.json: two protocols are never compared
        distance = float(next(iter(record["figures"].values())))  # the first figure is the Frechet distance
        if math.isfinite(distance):
            found.setdefault(newest, {})[int(record["images_seen"])] = distance
    return found.get(newest, {})


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
