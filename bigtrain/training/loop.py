"""The loop, whole."""

from bigtrain.engine import whereabouts
from bigtrain.recipe.errors import SavesFailedError
from bigtrain.training.hooks.evaluate import Evaluate
from bigtrain.training.run import Run
from bigtrain.training.saving import save


def train(run: Run) -> bool:
    """Train until the recipe's images are seen or a stop is asked for; return whether the run is complete.

    All ranks leave the loop after the same step, and what they reached is saved before they do.
    """
    for hook in run.hooks:
        if run.owes_evaluation and isinstance(hook, Evaluate):
            hook.run(run)
    while not run.is_done and not run.preemption.requested():  # before the first step too: start-up may take long
        for number, turn in enumerate(run.game.turns(run.progress)):
            run.play(number, turn)
        run.end_step()
        for hook in run.hooks:
            if hook.due(run):
                whereabouts.note(type(hook).__name__)
                hook.run(run)
    run.settle()
    run.log.event(
        "end" if run.is_complete else "preempted", run.progress
    )  # before the save, whose log length covers it
    save(run)
    if run.failed_saves:
        raise SavesFailedError(f"the last save before leaving failed; {run.folder} holds the checkpoints before it")
    return run.is_complete
