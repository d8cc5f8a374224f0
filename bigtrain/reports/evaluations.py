"""Figures of a run, each with its protocol: RUN/evaluations/<images>-<protocol>.json.

Figures of different protocols do not compare, so everything here is grouped by them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigtrain.reports.reading import is_number, numbers, read_object

HIGHER_IS_BETTER = (
    "inception_score",
    "is_classifier",
    "precision",
    "recall",
    "density",
    "coverage",
)  # all others are distances
SPREADS = ("_seeds_std", "_std")
NOT_COMPARED = ("_std", "_real_against_real")  # ends of figures that say how far to trust another one


@dataclass(frozen=True)
class Evaluation:
    """One file."""

    images_seen: int
    figures: dict[str, float]
    protocol: dict[str, Any]
    """Everything that figures must share to be comparable; versions besides."""
    protocol_name: str
    """As in the file's name; equal for equal protocols."""

    @property
    def average(self) -> str | None:
        """The moving average that was evaluated; None where the protocol names none."""
        sampling = self.protocol.get("sampling")
        found = sampling.get("average") if isinstance(sampling, dict) else self.protocol.get("average")
        return None if found is None else str(found)


@dataclass(frozen=True)
class Figure:
    """One figure over a run: the best evaluation's and the last one's."""

    best: float
    best_images: int
    last: float


def read_evaluations(folder: Path) -> tuple[list[Evaluation], list[str]]:
    """Return the evaluations of a run in the order of images seen, and the names of files that hold none."""
    found, damaged = [], []
    for path in sorted(folder.glob("*.json")):  # by images: names begin with them
        record = read_object(path)
        images, figures = record.get("images_seen"), numbers(record.get("figures"))
        if not is_number(images) or not figures:
            damaged.append(path.name)
            continue
        protocol = record.get("protocol")
        name = path.stem.partition("-")[2] or "unnamed"
        found.append(Evaluation(int(images), figures, protocol if isinstance(protocol, dict) else {}, name))
    return found, damaged


def by_protocol(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Return the evaluations by the name of their protocol."""
    found: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        found.setdefault(evaluation.protocol_name, []).append(evaluation)
    return found


def newest_protocol(evaluations: Sequence[Evaluation], average: str | None) -> str | None:
    """Return the protocol of one average that was used last; of any, where that one was never evaluated."""
    names = [each.protocol_name for each in evaluations if average is None or each.average == average]
    names = names or [each.protocol_name for each in evaluations]
    return names[-1] if names else None


def is_compared(name: str) -> bool:
    """Whether a figure says how good a model is, not how far to trust another figure."""
    return not name.endswith(NOT_COMPARED)


def higher_is_better(name: str) -> bool:
    """Whether more is better."""
    return name.startswith(HIGHER_IS_BETTER)


def spread_of(figures: Mapping[str, float], name: str) -> float | None:
    """Return the standard deviation that stands beside a figure: over seeds, else its own; None where there is none."""
    return next((figures[name + end] for end in SPREADS if name + end in figures), None)


def over_time(values: Sequence[tuple[int, float]], name: str) -> Figure:
    """Return the best and the last of (images seen, value)."""
    choose = max if higher_is_better(name) else min
    best_images, best = choose(values, key=lambda pair: pair[1])
    return Figure(best, best_images, values[-1][1])


def figures_over_time(evaluations: Sequence[Evaluation]) -> dict[str, Figure]:
    """Return best and last of every compared figure of evaluations of one protocol; the record's order is kept."""
    names = list(dict.fromkeys(name for each in evaluations for name in each.figures if is_compared(name)))
    return {
        name: over_time([(each.images_seen, each.figures[name]) for each in evaluations if name in each.figures], name)
        for name in names
    }
