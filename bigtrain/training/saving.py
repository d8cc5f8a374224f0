"""Saving while training goes on: a save is begun at one step and finished, told and counted at a later one.

What becomes of a save is learnt by all ranks at the same step, so they count alike. At most one is in flight.
"""

import contextlib
from typing import TYPE_CHECKING

from bigtrain.engine.checkpoints.checkpoint import NotFiniteError, SaveFailedError
from bigtrain.engine.checkpoints.rollbacks import present_records
from bigtrain.recipe.errors import SavesFailedError
from bigtrain.training.health.watchdog import DivergedError
from bigtrain.training.retention import best_images, ranking
from bigtrain.training.state import check_ranks, record_of, tensors_of

if TYPE_CHECKING:
    from bigtrain.training.run import Run

MAX_FAILED_SAVES = 3  # in a row, before the run stops
BEST = "best evaluation so far: "


def reserve(run: "Run") -> None:
    """Take the memory that saves need; once the optimizers have state, which is after the first step."""
    run.checkpoints.reserve(tensors_of(run))


def begin(run: "Run") -> None:
    """Copy this step's state and write it in the background, unless it is written already; collective.

    A save that was in flight is finished first.

    Raises:
        RanksDriftedError: ranks do not hold the same.
        DivergedError, SavesFailedError: as `finish`.
    """
    finish(run)
    if run.saved_images == run.progress.images_seen:
        return
    run.settle()
    tensors = tensors_of(run)
    check_ranks(run, tensors)
    run.being_saved = run.progress
    run.checkpoints.begin(run.progress.images_seen, tensors, record_of(run), first=run.log.sync)


def finish(run: "Run") -> None:
    """Wait for the save in flight, if there is one, log what became of it, and pin what evaluated best; collective.

    A save that failed has left the earlier checkpoints as they were, and training goes on.

    Raises:
        DivergedError: what was to be saved is not finite, which skipped turns do not explain.
        SavesFailedError: it was the third in a row that failed.
    """
    progress, run.being_saved = run.being_saved, None
    if progress is None:
        return
    try:
        saved = run.checkpoints.finish()
    except NotFiniteError as error:
        raise DivergedError(str(error), run.saved_images or 0) from error
    except SaveFailedError as error:
        run.failed_saves += 1
        run.log.event("alarm", run.progress, reason=f"save failed: {error}", failed_saves=run.failed_saves)
        if run.failed_saves >= MAX_FAILED_SAVES:
            raise SavesFailedError(f"{run.failed_saves} saves in a row failed, the last one so: {error}") from error
        return
    assert saved is not None
    run.saved_images, run.failed_saves, run.save_s = saved.images, 0, saved.save_s
    run.log.event("checkpoint", progress, path=str(saved.path), stall_s=saved.stall_s, save_s=saved.save_s)
    run.write_aside("the pins of the best checkpoints", lambda: pin_best(run))
    for images in run.watched.take_let_go() if run.watched is not None else []:
        reason = (
            f"the checkpoint after {images:,} images was given free before a watcher had evaluated it; raise "
            "checkpoint.keep_unevaluated, or evaluate less often"
        )
        run.log.event("alarm", run.progress, reason=reason)


def forget(run: "Run") -> None:
    """Wait for the save in flight, whatever becomes of it: the run goes back to a checkpoint before it; collective."""
    run.being_saved = None
    with contextlib.suppress(SaveFailedError):
        run.checkpoints.finish()


def save(run: "Run") -> None:
    """Have this step on disk when it returns, unless the save fails, which it counts and logs; collective.

    Raises:
        SavesFailedError: the third save in a row failed.
    """
    begin(run)
    finish(run)


def pin_best(run: "Run") -> None:
    """Keep the `keep_best` saved checkpoints that evaluated best by `keep_best_by` from being pruned, and let go of
    others."""
    ranks = ranking(present_records(run.folder), run.recipe)
    best = best_images(ranks, run.checkpoints.saved(), run.recipe.checkpoint.keep_best)
    for images, why in best.items():
        run.checkpoints.pin(images, f"{BEST}{why}")
    for images, reason in run.checkpoints.pinned().items():
        if images not in best and reason.startswith(BEST):
            run.checkpoints.unpin(images)
