"""An evaluation that a stop has cut short is owed: it leaves no file, and the next start makes it before going on.

What the watchdog learns from it is in the checkpoints after it, not in its own step's, which is there already.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bigtrain.metrics.records import EVALUATIONS, TRAINING, EvaluationRecord, read_record
from bigtrain.recipe.progress import crossed

if TYPE_CHECKING:
    from bigtrain.training.run import Run


def evaluation_due(run: "Run") -> bool:
    """Tell whether the step just made calls for an evaluation: a period was crossed, or the run is at its end."""
    settings = run.recipe.evaluate
    if settings is None or run.progress.steps == 0:
        return False
    return crossed(settings.every_images, run.images_before_step, run.progress.images_seen) or run.is_done


def is_evaluation_owed(run: "Run") -> bool:
    """Tell all ranks whether the step that the run stands at calls for an evaluation that was not written."""
    written = {record.average for record in _records(run)} if run.launch.ranks.is_main else set()
    wanted = {each.name for each in run.recipe.ema}
    return run.launch.ranks.broadcast_object(evaluation_due(run) and not wanted <= written)


def owe_evaluation(run: "Run") -> None:
    """Have the next start make this step's evaluation, also where an earlier start had written it."""

    def remove() -> None:
        for record in list(_records(run)):
            record.path.unlink()

    run.write_aside("what is left of an evaluation", remove)
    run.owes_evaluation = True


def _records(run: "Run") -> Iterator[EvaluationRecord]:
    """Yield the training's own evaluations of the step that the run stands at; a watcher's are not the log's."""
    for path in (run.folder / EVALUATIONS).glob(f"{run.progress.images_seen:012d}-*.json"):
        record = read_record(path)
        if record is not None and record.by == TRAINING and record.salt == run.progress.salt:
            yield record
