"""The loop, whole."""

from bigtrain.engine.heartbeat import whereabouts
from bigtrain.recipe.errors import SavesFailedError
from bigtrain.training.health.rollback import roll_back
from bigtrain.training.health.watchdog import DivergedError
from bigtrain.training.hooks.evaluate import Evaluate
from bigtrain.training.run import Run
from bigtrain.training.saving import save


def train(run: Run) -> bool:
    """Train until the recipe's images are seen or a stop is asked for; return whether the run is complete.

    All ranks leave the loop after the same step, and what they reached is saved before they do. A run that goes wrong
    goes back to a checkpoint, a bounded number of times.

    Raises:
        DivergenceError: it went wrong too often, or there is no checkpoint to go back to.
    """
    while True:
        try:
            _train(run)
            break
        except DivergedError as failure:  # met by all ranks after the same turn
            roll_back(run, failure)
    if run.saved_images != run.progress.images_seen:
        raise SavesFailedError(f"the last save before leaving failed; {run.folder} holds the checkpoints before it")
    return run.is_complete


def _train(run: Run) -> None:
    for hook in run.hooks:
        if run.owes_evaluation and isinstance(hook, Evaluate):
            hook.run(run)
    while not run.is_done and run.begin_step():  # asks before the first step too: start-up may take long
        for number, turn in enumerate(run.game.turns(run.progress)):
            run.play(number, turn)
        run.end_step()
        for hook in run.hooks:
            if hook.due(run):
                whereabouts.note(type(hook).__name__)
                hook.run(run)
    run.settle()
    # Before the save, whose log length covers it.
    run.log.event("end" if run.is_complete else "preempted", run.progress)
    save(run)
