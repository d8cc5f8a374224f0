"""What became of runs: their states and figures, read from their folders as they are."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bigtrain.metrics.figures import badness
from bigtrain.metrics.records import EvaluationRecord, best_record
from bigtrain.reports.evaluations import RANKING_KEYS, Figure, figures_over_time, ranked, read_evaluations
from bigtrain.reports.reading import read_object, read_recipe

UNIT = "images"


class Described(Protocol):
    """A `bigtrain.training.schema.Recipe`, as far as it is read here."""

    @property
    def name(self) -> str:
        """Of the run."""
        ...

    @property
    def total_images(self) -> int:
        """Images of the run."""
        ...

    @property
    def run_folder(self) -> Path:
        """Where the run writes."""
        ...


@dataclass(frozen=True)
class Result:
    """How a run stands."""

    name: str
    folder: Path
    state: str
    """As status.json says it; "not started" without one."""
    images_seen: int
    total_images: int
    figures: dict[str, Figure] = field(default_factory=dict)
    """Of the protocol that ranks the run, over all averages; figures of different protocols do not compare."""
    protocol: str | None = None
    """As in the name of the best evaluation's file."""
    group: str | None = None
    """Equal for figures that compare."""

    def record(self) -> dict[str, Any]:
        """Return the result as plain JSON."""
        figures = {
            name: {"best": figure.best, "best_images": figure.best_images, "last": figure.last}
            for name, figure in self.figures.items()
        }
        return {
            "name": self.name,
            "run_dir": str(self.folder),
            "state": self.state,
            "images_seen": self.images_seen,
            "total_images": self.total_images,
            "protocol": self.protocol,
            "figures": figures,
        }


def result_of(recipe: Described, events: Iterable[Mapping[str, Any]] = ()) -> Result:
    """Return how a recipe's run stands; whatever is missing or unreadable in its folder is left out.

    Args:
        recipe: of the run.
        events: of its log, for how far it is.
    """
    folder = recipe.run_folder
    status = read_object(folder / "status.json")
    seen = [int(event.get("images_seen", 0)) for event in events]
    figures, best = _figures(folder)
    return Result(
        name=recipe.name,
        folder=folder,
        state=str(status.get("state", "unknown")) if status else "not started",
        images_seen=max([*seen, int(status.get("images_seen") or 0)]),
        total_images=recipe.total_images,
        figures=figures,
        protocol=None if best is None else best.protocol_name,
        group=None if best is None else best.group,
    )


def _figures(folder: Path) -> tuple[dict[str, Figure], EvaluationRecord | None]:
    """Return the figures of the protocol that ranks the run, by name, and the best of its evaluations."""
    figure, having = ranked(read_recipe(folder / "recipe.yaml", RANKING_KEYS), read_evaluations(folder)[0])
    return figures_over_time(having), best_record(having, figure)


def table(results: Sequence[Result]) -> Iterator[str]:
    """Yield the results as lines, columns aligned, the best of each column of figures marked with an asterisk."""
    names = list(dict.fromkeys(name for result in results for name in result.figures))
    head = ["run", UNIT, "state"] + [f"{name} {kind}" for name in names for kind in ("best", "last")]
    best = {name: _best(results, name) for name in names}
    rows = [head] + [_row(result, names, best) for result in results]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if len({result.group for result in results} - {None}) > 1:
        yield "evaluated by different protocols: these figures do not compare"


def _best(results: Sequence[Result], name: str) -> float:
    return min(
        (result.figures[name].best for result in results if name in result.figures),
        key=lambda value: badness(name, value),
    )


def _row(result: Result, names: Sequence[str], best: dict[str, float]) -> list[str]:
    cells = [result.name, f"{result.images_seen:,}/{result.total_images:,}", result.state.partition(";")[0]]
    for name in names:
        figure = result.figures.get(name)
        if figure is None:
            cells += ["-", "-"]
            continue
        mark = "*" if figure.best == best[name] else ""
        cells += [f"{figure.best:.4g}{mark} at {figure.best_images:,}", f"{figure.last:.4g}"]
    return cells
