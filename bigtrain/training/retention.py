"""How a run's evaluations rank its checkpoints and averages: read from their files, whoever wrote them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bigtrain.engine.checkpoints.rollbacks import is_abandoned, read_rollbacks
from bigtrain.metrics.figures import FRECHET, badness, frechet_name, is_frechet
from bigtrain.metrics.records import EvaluationRecord, best_record, choose_group, read_records
from bigtrain.recipe.errors import CheckpointError
from bigtrain.training.schema import Recipe


@dataclass(frozen=True)
class Ranking:
    """Evaluations that compare, and the figure that they are ranked by."""

    figure: str
    records: dict[int, EvaluationRecord]
    """By images seen; of several averages the best one's."""

    def badness(self, images: int) -> float:
        """Return a number that is smaller for a better evaluation."""
        return badness(self.figure, self.records[images].figures[self.figure])


def present_records(run_folder: Path) -> list[EvaluationRecord]:
    """Return a run's evaluations by images seen, but for those of parts that the run went back from."""
    try:
        rollbacks = read_rollbacks(run_folder / "checkpoints")
    except CheckpointError:  # damaged: a start says so
        rollbacks = []
    return [
        record for record in read_records(run_folder) if not is_abandoned(rollbacks, record.images_seen, record.salt)
    ]


def ranking_figure(recipe: Recipe, records: Iterable[EvaluationRecord] = ()) -> str | None:
    """Return the figure that `checkpoint.keep_best_by` names; None where nothing says which Frechet distance that is.

    Args:
        recipe: of the run.
        records: evaluations, for the name where the recipe has no `evaluate` section and others evaluate.
    """
    if recipe.checkpoint.keep_best_by != FRECHET:
        return recipe.checkpoint.keep_best_by
    if recipe.evaluate is not None:
        return frechet_name(recipe.evaluate.measured[0].extractor)
    newest_first = sorted(records, key=lambda each: each.images_seen, reverse=True)
    return next((name for record in newest_first for name in record.figures if is_frechet(name)), None)


def ranking(run_folder: Path, recipe: Recipe) -> Ranking:
    """Return the evaluations that rank a run's checkpoints: of one protocol, and of the average that counts."""
    records = present_records(run_folder)
    figure = ranking_figure(recipe, records)
    if figure is None:
        return Ranking("", {})
    if recipe.checkpoint.keep_best_average == "first":
        records = [record for record in records if record.average == recipe.ema[0].name]
    found: dict[int, EvaluationRecord] = {}
    for record in choose_group(records, figure):
        before = found.get(record.images_seen)
        if before is None or badness(figure, record.figures[figure]) < badness(figure, before.figures[figure]):
            found[record.images_seen] = record
    return Ranking(figure, found)


def best_images(run_folder: Path, recipe: Recipe, among: Iterable[int]) -> dict[int, str]:
    """Return the `keep_best` best of some checkpoints, each with what it is best by, best first."""
    ranks = ranking(run_folder, recipe)
    there = sorted(
        (images for images in among if images in ranks.records), key=lambda images: (ranks.badness(images), images)
    )
    chosen = [ranks.records[images] for images in there[: recipe.checkpoint.keep_best]]
    return {
        record.images_seen: f"{ranks.figure} {record.figures[ranks.figure]:.6g} of {record.average}"
        for record in chosen
    }


def newest_winner(run_folder: Path) -> EvaluationRecord | None:
    """Return the newest evaluation by the training of the average that was then the best of several."""
    winners = [each for each in present_records(run_folder) if each.best_average == each.average]
    return max(winners, key=lambda each: each.images_seen, default=None)


def sentence_of_best(run_folder: Path, recipe: Recipe) -> str | None:
    """Return which evaluation and, of several, which average was best; None where nothing says it."""
    records = present_records(run_folder)
    figure = ranking_figure(recipe, records)
    having = list(choose_group(records, figure)) if figure is not None else []
    best = best_record(having, figure or "")
    if figure is None or best is None:
        return None
    sentence = (
        f"evaluated best by {figure}: {best.average} after {best.images_seen:,} images ({best.figures[figure]:.4g})"
    )
    last = [record for record in having if record.images_seen == having[-1].images_seen]
    winner = best_record(last, figure)
    if len(last) == 1 or winner is None:
        return sentence
    others = ", ".join(f"{each.average} {each.figures[figure]:.4g}" for each in last if each is not winner)
    return f"{sentence}; in the end {winner.average} ({winner.figures[figure]:.4g}; {others})"
