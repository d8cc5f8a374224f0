"""How a run's evaluations rank its checkpoints and averages: read from their files, whoever wrote them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bigtrain.engine.checkpoints.rollbacks import present_records
from bigtrain.engine.processes.lease import LEASE_SILENT_S, Leases
from bigtrain.metrics.figures import badness, own_figure
from bigtrain.metrics.records import EvaluationRecord, best_record, choose_group
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


def ranking_figure(recipe: Recipe, records: Iterable[EvaluationRecord] = ()) -> str | None:
    """Return the figure that `checkpoint.keep_best_by` names; None where nothing says which Frechet distance that is.

    Args:
        recipe: of the run.
        records: evaluations, for the name where the recipe has no `evaluate` section and others evaluate.
    """
    sections = {
        "checkpoint": {"keep_best_by": recipe.checkpoint.keep_best_by},
        "evaluate": recipe.evaluate and recipe.evaluate.model_dump(include={"metrics": True, "extractor": {"kind"}}),
    }
    newest_first = sorted(records, key=lambda each: each.images_seen, reverse=True)
    return own_figure(sections, (record.figures for record in newest_first))


def ranking(records: Sequence[EvaluationRecord], recipe: Recipe) -> Ranking:
    """Return the evaluations that rank a run's checkpoints: of one protocol, and of the average that counts.

    Args:
        records: as `present_records` returns them.
        recipe: of the run.
    """
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


def best_images(ranks: Ranking, among: Iterable[int], keep_best: int) -> dict[int, str]:
    """Return the `keep_best` best of some checkpoints, each with what it is best by, best first."""
    there = [images for images in among if images in ranks.records]
    there.sort(key=lambda images: (ranks.badness(images), images))
    chosen = [ranks.records[images] for images in there[:keep_best]]
    return {
        record.images_seen: f"{ranks.figure} {record.figures[ranks.figure]:.6g} of {record.average}"
        for record in chosen
    }


class WatchedRetention:
    """Which checkpoints stay besides the newest: the best evaluated, and those that a living watcher has yet to see.

    Asked by the thread that saves, on the main process. At most `keep_unevaluated` wait, the newest of them.
    """

    def __init__(self, run_folder: Path, recipe: Recipe, silent_s: float = LEASE_SILENT_S) -> None:
        self._folder, self._recipe = run_folder, recipe
        self._leases = Leases(run_folder, silent_s)
        self._let_go: list[int] = []

    def wanted(self, saved: Sequence[int]) -> set[int]:
        """Return what is not to be pruned of the saved checkpoints, newest first."""
        settings = self._recipe.checkpoint
        # Once: what a watcher writes meanwhile is either unevaluated here or ranked, never neither.
        records = present_records(self._folder)
        best = set(best_images(ranking(records, self._recipe), saved, settings.keep_best))
        waiting = [images for images in self._waiting(saved[settings.keep_last :], records) if images not in best]
        self._let_go += waiting[settings.keep_unevaluated :]
        return best | set(waiting[: settings.keep_unevaluated])

    def _waiting(self, old: Sequence[int], records: Sequence[EvaluationRecord]) -> list[int]:
        """Return those that some living watcher has neither evaluated nor given up."""
        evaluated = {(record.images_seen, record.protocol_name) for record in records}
        waiting: set[int] = set()
        for _, wants in self._leases.living():
            names, given_up = wants.get("protocols"), wants.get("given_up", [])
            for images in old if wants.get("checkpoints", True) else ():
                is_seen = names is not None and all((images, name) in evaluated for name in names)
                if not is_seen and images not in given_up:
                    waiting.add(images)
        return sorted(waiting, reverse=True)

    def take_let_go(self) -> list[int]:
        """Return, once, the checkpoints that were given free before a living watcher had evaluated them."""
        taken, self._let_go = self._let_go, []
        return taken


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
