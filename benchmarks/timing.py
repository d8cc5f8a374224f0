"""Time two ways of doing one thing, interleaved, and report rows in one form.

A row is `{"name", "ours", "reference", "ratio", "unit"}`: medians, and a ratio that is over 1 when ours is better.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict


class Row(TypedDict):
    """One measured comparison; `reference` and `ratio` are None where there is nothing to compare with."""

    name: str
    ours: float
    reference: float | None
    ratio: float | None
    unit: str


def time_s(action: Callable[[], object]) -> float:
    """Return how long one call takes, in seconds of wall time."""
    started_s = time.perf_counter()
    action()
    return time.perf_counter() - started_s


def cpu_s(action: Callable[[], object]) -> float:
    """Return how much CPU time one call takes, in seconds over this process and the children that end within it."""
    started_s = sum(os.times()[:4])
    action()
    return sum(os.times()[:4]) - started_s


def compare(
    name: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    repeats: int = 7,
    clock: Callable[[Callable[[], object]], float] = time_s,
) -> Row:
    """Return the median times of two actions run in turn, after one unmeasured call of each, in seconds.

    The two alternate, so that a machine that slows down meanwhile slows both.
    """
    ours(), reference()
    pairs = [(clock(ours), clock(reference)) for _ in range(repeats)]
    ours_s, reference_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    return Row(name=name, ours=ours_s, reference=reference_s, ratio=reference_s / ours_s, unit="s")


def rate(name: str, ours: Callable[[], object], things: int, unit: str, repeats: int = 7) -> Row:
    """Return how many things per second an action does, from its median time; there is nothing to compare with."""
    ours()
    median_s = statistics.median(time_s(ours) for _ in range(repeats))
    return Row(name=name, ours=things / median_s, reference=None, ratio=None, unit=unit)


def report(rows: Sequence[Row], json_file: Path | None) -> None:
    """Write rows to standard output, one a line, and to a JSON file when one is given."""
    for row in rows:
        compared = "" if row["ratio"] is None else f"  reference {row['reference']:.4g}  ratio {row['ratio']:.2f}"
        sys.stdout.write(f"{row['name']:<52} {row['ours']:.4g} {row['unit']}{compared}\n")
    if json_file:
        json_file.write_text(json.dumps(list(rows), indent=1) + "\n")


def main(measure: Callable[[], Sequence[Row]], description: str | None) -> int:
    """Run a benchmark module as a command: measure, report, return 0."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    report(measure(), parser.parse_args().json)
    return 0
