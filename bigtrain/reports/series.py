"""Curves over a run: which figures belong into one panel, and their numbers, thinned where there are many."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bigtrain.reports.evaluations import SPREADS, by_protocol, is_compared, spread_of
from bigtrain.reports.reading import PLACE, Event, is_number
from bigtrain.reports.run import RunRecord

BY_RANK = "_by_rank"
NOT_SHOWN = (*PLACE, "kimg", "reals_shown")  # the axes themselves
MOST_POINTS = 1500  # of a series; TOTAL_POINTS over all runs
TOTAL_POINTS = 6000
FEWEST_POINTS = 200
SPREAD_FOR_LOG = 50.0  # largest over smallest value from which a panel begins with a logarithmic axis
HOUR_S = 3600
DIGITS = 5
SAME_SIZE, REAL = "_same_size", "_real_against_real"
MOST_FIGURES = 24  # of one protocol that are drawn and tabulated: there may be one a class

PENALTIES = ("r1", "r2", "gradient_penalty", "lecam", "consistency", "orthogonal", "path_length", "path_length_penalty")
GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Losses", "objective, without penalties", ("loss_",)),
    ("Gradient norms", "of a player's main turns, and of lazy penalties", ("gradient_norm_",)),
    ("Penalties", "without their weights", PENALTIES),
    ("Mean logits", "in the discriminator's turns", ("logit_",)),
    ("Mean signs of logits", "real images trained on, and held out: far apart means memorising", ("sign_",)),
    ("Strength of the augmentation", "probability, or 1", ("augment_strength",)),
    ("Sample diversity", "distance of generated images, relative to real ones", ("sample_diversity",)),
    ("Largest singular values", "of the largest weights", ("singular_value",)),
    ("Throughput", "images a second, in each period", ("images_per_s",)),
    ("Wait for data", "seconds in each period", ("data_wait_s",)),
    ("Memory", "GiB, the most so far", ("memory_gib",)),
)
"""Title, what it is, and what the names of its figures are or begin with."""


@dataclass(frozen=True)
class Line:
    """One line of a panel."""

    run: int
    """Number of the run on the page."""
    name: str
    """What it is among the lines of its run."""
    style: str
    """solid, dash, dot, dashdot or longdash."""
    y: list[float | None]
    x: dict[str, list[float | None]] | None = None
    """images, steps, hours; None: the run's own status lines."""
    error: list[float | None] | None = None
    """Standard deviations."""


@dataclass(frozen=True)
class Panel:
    """One plot."""

    title: str
    text: str
    lines: list[Line]
    is_measured: bool = False
    """Whether its points are evaluations, which are shown as they are and never smoothed."""
    protocol: str | None = None
    log: bool = field(default=False)


def place_of(event: Event) -> dict[str, float | None]:
    """Return where an event lies on each axis."""
    hours = None if event["time_s"] is None else _rounded(event["time_s"] / HOUR_S)
    return {"images": event["images_seen"], "steps": event["step"], "hours": hours}


def axes_of(events: Sequence[Event]) -> dict[str, list[float | None]]:
    """Return the places of events, an axis each."""
    places = [place_of(event) for event in events]
    return {axis: [place[axis] for place in places] for axis in ("images", "steps", "hours")}


def points_of_each(num_runs: int) -> int:
    """Return how many points a series of each of so many runs may have."""
    return max(FEWEST_POINTS, min(MOST_POINTS, TOTAL_POINTS // max(1, num_runs)))


def thinned(events: Sequence[Event], most: int) -> tuple[list[Event], dict[str, list[float | None]]]:
    """Return the events that carry a series of at most `most` points, and the values of every figure at them.

    Neighbours are put together in pairs of places, which get the smallest and the largest value among them, in the
    order in which they came: no peak is lost.
    """
    names = list(dict.fromkeys(name for event in events for name in event if _is_figure(event, name)))
    columns = {name: [_value(event.get(name)) for event in events] for name in names}
    if len(events) <= most:
        return list(events), columns
    size = -(-2 * len(events) // most)
    firsts = range(0, len(events), size)
    kept = [event for first in firsts for event in (events[first], events[min(first + size, len(events)) - 1])]
    return kept, {
        name: [v for first in firsts for v in _extremes(column[first : first + size])]
        for name, column in columns.items()
    }


def _extremes(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    numbered = [(value, place) for place, value in enumerate(values) if value is not None]
    if not numbered:
        return None, None
    low, high = min(numbered), max(numbered)
    return (low[0], high[0]) if low[1] <= high[1] else (high[0], low[0])


def _is_figure(event: Event, name: str) -> bool:
    return name not in NOT_SHOWN and not name.endswith(BY_RANK) and is_number(event[name])


def _value(value: Any) -> float | None:
    return _rounded(value) if is_number(value) else None


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def status_panels(columns_of_runs: Sequence[dict[str, list[float | None]]]) -> list[Panel]:
    """Return the panels of status figures, by the table of GROUPS; figures that it does not know get one each.

    Args:
        columns_of_runs: a run's figures by name each, as `thinned` gives them.
    """
    names = list(dict.fromkeys(name for columns in columns_of_runs for name in columns))
    groups = [(title, text, [name for name in names if _belongs(name, keys)]) for title, text, keys in GROUPS]
    known = {name for _, _, members in groups for name in members}
    groups += [(_words(name), "", [name]) for name in names if name not in known]
    panels = []
    for title, text, members in groups:
        if not members:
            continue
        shown = _short_names(members)
        lines = [
            Line(run, shown[name], style_of(members.index(name)), columns[name])
            for run, columns in enumerate(columns_of_runs)
            for name in members
            if name in columns
        ]
        panels.append(Panel(title, text, lines, log=title in ("Gradient norms", "Penalties") and _is_wide(lines)))
    return panels


def _belongs(name: str, keys: Sequence[str]) -> bool:
    if name.endswith("_nonfinite"):
        return False
    return any(name == key or (key.endswith(("_", "value")) and name.startswith(key)) for key in keys)


def _short_names(members: Sequence[str]) -> dict[str, str]:
    """Return the names without the beginning that all of them share."""
    if len(members) == 1:
        return {members[0]: _words(members[0])}
    shared = 0
    parts = [name.split("_") for name in members]
    while all(len(each) > shared + 1 and each[shared] == parts[0][shared] for each in parts):
        shared += 1
    return {name: " ".join(each[shared:]) for name, each in zip(members, parts, strict=True)}


def _words(name: str) -> str:
    return name.replace("_", " ")


def style_of(number: int) -> str:
    """Return the style of the n-th line of a run."""
    styles = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
    return styles[number % len(styles)]


def _is_wide(lines: Sequence[Line]) -> bool:
    values = [value for line in lines for value in line.y if value is not None]
    return bool(values) and min(values) > 0 and max(values) > SPREAD_FOR_LOG * min(values)


def evaluation_panels(records: Sequence[RunRecord]) -> list[Panel]:
    """Return a panel for each figure of each protocol: figures of different protocols never share one."""
    found: dict[tuple[str, str], list[Line]] = {}
    for run, record in enumerate(records):
        hours = _hours_by_images(record.events)
        for protocol, evaluations in by_protocol(record.evaluations).items():
            names = _first_families(list(dict.fromkeys(name for each in evaluations for name in each.figures)))
            x: dict[str, list[float | None]] = {
                "images": [each.images_seen for each in evaluations],
                "steps": [hours.get(each.images_seen, (None, None))[0] for each in evaluations],
                "hours": [hours.get(each.images_seen, (None, None))[1] for each in evaluations],
            }
            for name in names:
                family = _family(name)
                y = [_value(each.figures.get(name)) for each in evaluations]
                error = [_value(spread_of(each.figures, name)) for each in evaluations]
                style = "solid" if name == family else "dash" if is_compared(name) else "dot"
                shown = _words(name.removeprefix(family).strip("_") or name)
                line = Line(run, shown, style, y, x, error if any(each is not None for each in error) else None)
                found.setdefault((family, protocol), []).append(line)
    families = list(dict.fromkeys(family for family, _ in found))  # one figure under two protocols: side by side
    return [
        Panel(_words(family), "", lines, is_measured=True, protocol=protocol, log=_is_wide(lines))
        for (family, protocol), lines in sorted(found.items(), key=lambda item: families.index(item[0][0]))
    ]


def _family(name: str) -> str:
    """Return the figure that a name is a variant of."""
    return name.removesuffix(SAME_SIZE).removesuffix(REAL)


def _first_families(names: Sequence[str]) -> list[str]:
    """Return the names, without spreads, of the first MOST_FIGURES figures with all their variants."""
    shown = [name for name in names if not name.endswith(SPREADS)]
    families = list(dict.fromkeys(map(_family, shown)))[:MOST_FIGURES]
    return [name for name in shown if _family(name) in families]


def _hours_by_images(events: Sequence[Event]) -> dict[float, tuple[float | None, float | None]]:
    """Return step and hours at which the log saw a number of images."""
    return {event["images_seen"]: (event["step"], place_of(event)["hours"]) for event in events}


def rank_panels(records: Sequence[RunRecord], most: int) -> list[Panel]:
    """Return a panel a run of several ranks: own computing in a step, of each rank or of fastest, median, slowest."""
    panels = []
    for run, record in enumerate(records):
        lines = [line for line in record.status_lines if isinstance(line.get("compute_s_by_rank"), list)]
        lines = lines[:: -(-len(lines) // most)] if lines else []
        if not lines:
            continue
        values = [[value for value in line["compute_s_by_rank"] if is_number(value)] for line in lines]
        world = max(map(len, values))
        if world <= 8:
            columns = {
                f"rank {rank}": [each[rank] if rank < len(each) else None for each in values] for rank in range(world)
            }
        else:
            ordered = [sorted(each) for each in values]
            columns = {
                name: [each[int(share * (len(each) - 1))] if each else None for each in ordered]
                for name, share in (("fastest", 0.0), ("median", 0.5), ("slowest", 1.0))
            }
        x = axes_of(lines)
        drawn = [Line(run, name, style_of(number), y, x) for number, (name, y) in enumerate(columns.items())]
        panels.append(Panel("Own time of ranks", f"seconds of computing a step, {record.label}", drawn))
    return panels
