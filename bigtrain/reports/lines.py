"""One figure of some runs as lines, for plots and tables on paper: from evaluations where it is one of theirs, else
from the log."""

from collections.abc import Sequence
from dataclasses import dataclass

from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.registry import nearest
from bigtrain.reports.evaluations import by_protocol, spread_of
from bigtrain.reports.reading import is_number
from bigtrain.reports.run import RunRecord
from bigtrain.reports.series import NOT_SHOWN, axes_of

AXES = {"images": "images seen", "steps": "steps", "hours": "hours of training"}
MOST_NAMES = 12  # that an error lists


@dataclass(frozen=True)
class FigureLine:
    """A figure over one run."""

    run: int
    label: str
    protocol: str | None
    """None: a figure of the log, which has none."""
    x: list[float]
    y: list[float]
    error: list[float] | None
    """Standard deviations."""


def known_figures(records: Sequence[RunRecord]) -> list[str]:
    """Return the names of all figures of some runs: those of evaluations first."""
    evaluated = [name for record in records for each in record.evaluations for name in each.figures]
    logged = [name for record in records for line in record.status_lines for name in line if is_number(line[name])]
    return list(dict.fromkeys([*evaluated, *(name for name in logged if name not in NOT_SHOWN)]))


def check_figures(records: Sequence[RunRecord], names: Sequence[str]) -> None:
    """Refuse figures that none of the runs has.

    Raises:
        UsageError: it names the figures most like it.
    """
    known = known_figures(records)
    for name in names:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean '{close}'?" if close else "they are:" if known else "they have none yet"
            others = [] if close else known[:MOST_NAMES]
            raise UsageError(f"'{name}' is not a figure of these runs; {hint} {', '.join(others)}".rstrip())


def lines_of(records: Sequence[RunRecord], name: str, axis: str) -> list[FigureLine]:
    """Return a figure's lines, one for each run and protocol; places that `axis` does not know are left out."""
    found = [line for run, record in enumerate(records) for line in _evaluated(run, record, name, axis)]
    return found or [line for run, record in enumerate(records) for line in _logged(run, record, name, axis)]


def _evaluated(run: int, record: RunRecord, name: str, axis: str) -> list[FigureLine]:
    places = dict(zip((event["images_seen"] for event in record.events), axes_of(record.events)[axis], strict=True))
    lines = []
    for protocol, evaluations in by_protocol(record.evaluations).items():
        shown = [
            (each.images_seen if axis == "images" else places.get(each.images_seen), each)
            for each in evaluations
            if name in each.figures
        ]
        pairs = [(place, each) for place, each in shown if place is not None]
        if not pairs:
            continue
        spread = [spread_of(each.figures, name) for _, each in pairs]
        lines.append(
            FigureLine(
                run=run,
                label=record.label,
                protocol=protocol,
                x=[place for place, _ in pairs],
                y=[each.figures[name] for _, each in pairs],
                error=[value or 0.0 for value in spread] if any(value is not None for value in spread) else None,
            )
        )
    return lines


def _logged(run: int, record: RunRecord, name: str, axis: str) -> list[FigureLine]:
    events = [event for event in record.status_lines if is_number(event.get(name))]
    pairs = [
        (place, event[name]) for place, event in zip(axes_of(events)[axis], events, strict=True) if place is not None
    ]
    if not pairs:
        return []
    return [FigureLine(run, record.label, None, [x for x, _ in pairs], [y for _, y in pairs], None)]


def smoothed(values: Sequence[float], share: float) -> list[float]:
    """Return an exponential average that starts unbiased: `share` of what was before, the rest of what is new."""
    total, weight, found = 0.0, 0.0, []
    for value in values:
        total = share * total + (1 - share) * value
        weight = share * weight + (1 - share)
        found.append(total / weight)
    return found
