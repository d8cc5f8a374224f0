"""The loop, whole."""

from bigtrain.recipe.errors import SavesFailedError
from bigtrain.training.rollback import roll_back
from bigtrain.training.run import Run
from bigtrain.training.state import save
from bigtrain.training.watchdog import DivergedError


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
    if run.failed_saves:
        raise SavesFailedError(f"the last save before leaving failed; {run.folder} holds the checkpoints before it")
    return run.is_done


def _train(run: Run) -> None:
    while not run.is_done:
        for number, turn in enumerate(run.game.turns(run.progress)):
            run.play(number, turn)
        run.end_step()
        for hook in run.hooks:
            if hook.due(run):
                hook.run(run)
        if run.preemption.requested():
            break
    run.settle()
    run.log.event("end" if run.is_done else "preempted", run.progress)  # before the save, whose log length covers it
    save(run)
