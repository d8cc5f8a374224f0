"""List the runs in a folder: state, images, speed, time left, best figure, preemptions, GPU hours."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from bigtrain.cli import say
from bigtrain.recipe.errors import EXIT_DONE, UsageError
from bigtrain.reports.overview import Overview, find_runs, quick_overview
from bigtrain.reports.units import NOTHING, count, duration, figure, hours, rate

HEAD = ("run", "state", "images", "of", "images/s", "left", "best figure", "preempted", "GPU h")
RIGHT = (2, 3, 4, 5, 7, 8)  # columns of numbers
DEFAULT = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where to look."""
    parser.add_argument("folders", nargs="*", type=Path, metavar="RUNS", help=f"folders of runs (default: {DEFAULT})")
    parser.add_argument("--json", action="store_true", help="print JSON, an object a run")


def run(arguments: argparse.Namespace) -> int:
    """Print a line a run; return 0.

    Raises:
        UsageError: there is no such folder, or no run in any of them.
    """
    folders = arguments.folders or [DEFAULT]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; name one that holds runs")
    found = [quick_overview(path) for folder in folders for path in find_runs(folder)]
    if not found:
        raise UsageError(f"there is no run in {', '.join(map(str, folders))}; a run's folder has a log.jsonl")
    if arguments.json:
        say(json.dumps([each.record() for each in found], indent=1))
    else:
        say("\n".join(table(found)))
    return EXIT_DONE


def table(found: Sequence[Overview]) -> Iterator[str]:
    """Yield the runs as lines, columns aligned; below them, what the marks of figures mean."""
    names: dict[str, str] = {}
    for best in (each.best for each in found if each.best):
        names.setdefault(best.group, best.protocol)
    protocols = list(names)
    rows = [HEAD, *(_row(each, protocols) for each in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        cells = [
            cell.rjust(width) if column in RIGHT else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    yield from (f"[{number}] by {protocol}" for number, protocol in enumerate(names.values(), 1))
    if len(protocols) > 1:
        yield "figures with different marks do not compare: their protocols differ"
    if any(each.is_about for each in found):
        yield "~ reckoned from the ends of the log, over several starts"
    yield from (f"{each.name}: {each.state.sentence}" for each in found if each.state.word in ("dead", "failed"))


def _row(each: Overview, protocols: list[str]) -> tuple[str, ...]:
    best = each.best
    shown = NOTHING
    if best is not None:
        mark = protocols.index(best.group) + 1
        shown = f"{best.name} {figure(best.value)} at {count(best.images_seen)} [{mark}]"
    spent = f"{'~' if each.is_about else ''}{hours(each.gpu_hours)}" if each.gpu_hours is not None else NOTHING
    return (
        each.name,
        each.state.word,
        count(each.images_seen),
        count(each.total_images),
        rate(each.images_per_s),
        duration(each.left_s or None),
        shown,
        str(each.num_preempted),
        spent,
    )
