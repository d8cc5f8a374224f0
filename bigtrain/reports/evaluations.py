"""Figures of a run, each with its protocol, as pages and tables show them. What an evaluation is, and how they rank, is
in `metrics/records.py`, for reports as for the training and `bigtrain best`.

Figures of different protocols do not compare, so everything here is grouped by them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigtrain.engine.checkpoints.rollbacks import without_abandoned
from bigtrain.metrics.figures import own_figure
from bigtrain.metrics.records import EVALUATIONS, EvaluationRecord, best_record, choose_group, read_record

RANKING_KEYS = ("checkpoint", "evaluate")  # of a recipe: what says how its run is ranked
SPREADS = ("_seeds_std", "_std")
NOT_COMPARED = ("_std", "_real_against_real")  # ends of figures that say how far to trust another one


@dataclass(frozen=True)
class Figure:
    """One figure over a run: the best evaluation's and the last one's."""

    best: float
    best_images: int
    last: float


def read_evaluations(run_folder: Path) -> tuple[list[EvaluationRecord], list[str]]:
    """Return the evaluations of a run in the order of images seen, and a sentence on each file that is left out, and on
    those of parts that the run went back from."""
    found, notes = [], []
    for path in sorted((run_folder / EVALUATIONS).glob("*.json")):  # by images: names begin with them
        record = read_record(path)
        if record is None or not record.figures:
            notes.append(f"{path.name} could not be read, and is left out.")
        else:
            found.append(record)
    there = without_abandoned(run_folder, found)
    if len(there) < len(found):
        notes.append(f"The run went back from what {len(found) - len(there)} evaluation(s) judged: left out.")
    return there, notes


def ranked(recipe: Mapping[str, Any], evaluations: Sequence[EvaluationRecord]) -> tuple[str, list[EvaluationRecord]]:
    """Return the figure that a run is ranked by, and the evaluations of one protocol that have it, of all averages.

    Args:
        recipe: of the run, as plain values; RANKING_KEYS of it are read. Where no evaluation has its figure, the first
            figure of the newest one ranks.
        evaluations: of the run, by images seen.
    """
    newest_first = [each.figures for each in reversed(evaluations)]
    figure = own_figure(recipe, newest_first)
    if not any(figure in figures for figures in newest_first):
        figure = next((name for figures in newest_first for name in figures if is_compared(name)), None)
    return (figure, list(choose_group(evaluations, figure))) if figure is not None else ("", [])


def by_protocol(evaluations: Sequence[EvaluationRecord]) -> dict[str, list[EvaluationRecord]]:
    """Return the evaluations by the name of their protocol in their files' names, which each average has its own of."""
    found: dict[str, list[EvaluationRecord]] = {}
    for evaluation in evaluations:
        found.setdefault(evaluation.protocol_name, []).append(evaluation)
    return found


def is_compared(name: str) -> bool:
    """Whether a figure says how good a model is, not how far to trust another figure."""
    return not name.endswith(NOT_COMPARED)


def spread_of(figures: Mapping[str, float], name: str) -> float | None:
    """Return the standard deviation that stands beside a figure: over seeds, else its own; None where there is none."""
    return next((figures[name + end] for end in SPREADS if name + end in figures), None)


def figures_over_time(evaluations: Sequence[EvaluationRecord]) -> dict[str, Figure]:
    """Return best and last of every compared figure of evaluations of one protocol; the record's order is kept.

    Of several averages at the last moment, the best one's is the last.
    """
    found = {}
    for name in dict.fromkeys(name for each in evaluations for name in each.figures if is_compared(name)):
        having = [each for each in evaluations if name in each.figures]
        best = best_record(having, name)
        last = best_record([each for each in having if each.images_seen == having[-1].images_seen], name)
        assert best is not None and last is not None, "the name is of one of them"  # noqa: PT018
        found[name] = Figure(best.figures[name], best.images_seen, last.figures[name])
    return found
