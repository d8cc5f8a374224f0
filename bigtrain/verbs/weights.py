"""Published weight files of feature extractors: check, where, import. Nothing is downloaded.

Each row of `_WEIGHTS` is one word after `bigtrain weights`: what it is, its arguments, what it does.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bigtrain.cli import say
from bigtrain.evaluation.options import metric_names
from bigtrain.evaluation.table import aligned
from bigtrain.metrics.names import METRICS
from bigtrain.metrics.weights import CATALOGUE, FOLDERS_VARIABLE, WeightFile, WeightStore, checked, imported
from bigtrain.recipe.errors import WeightsError

EXIT_FAULTS = 1  # of `check`: a file is wrong, or one that was asked for is missing


@dataclass(frozen=True)
class _Word:
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words and their arguments."""
    words = parser.add_subparsers(dest="word", required=True, metavar="WORD")
    for name, word in _WEIGHTS.items():
        own = words.add_parser(name, help=word.help, description=word.help)
        own.add_argument(
            "--weights", type=Path, metavar="DIR", help=f"a folder before those of {FOLDERS_VARIABLE} and torch's cache"
        )
        word.add_arguments(own)


def run(arguments: argparse.Namespace) -> int:
    """Do what the word says; return the exit status."""
    return _WEIGHTS[arguments.word].run(arguments)


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "metrics",
        nargs="*",
        metavar="METRIC",
        help="ask for the files of these only, such as fid; missing is a fault then",
    )


def _check(arguments: argparse.Namespace) -> int:
    store, files = _store(arguments), _files_of(arguments.metrics)
    if not files:
        say(f"{', '.join(arguments.metrics)}: no weight file is needed")
        return 0
    rows: list[Sequence[str]] = [("file", "of", "MiB", "state", "sha256", "path")]
    faults = 0
    for file in files:
        row, is_fault = _row(store, file)
        rows.append(row)
        faults += is_fault or (row[3] == "missing" and bool(arguments.metrics))
    for line in aligned(rows):
        say(line)
    for file in files:
        if store.locate(file) is None:
            say(f"\n{file.name}: fetch {file.source} and import it with `bigtrain weights import FILE`")
    return EXIT_FAULTS if faults else 0


def _row(store: WeightStore, file: WeightFile) -> tuple[tuple[str, ...], bool]:
    """Return a row of the table, and whether the file is a wrong one."""
    head = (file.name, file.extractor, str(file.mib))
    path = store.locate(file)
    if path is None:
        return (*head, "missing", f"{file.sha256_start}..." if file.sha256_start else "not known", ""), False
    try:
        found = checked(file, path)
    except WeightsError:
        return (*head, "wrong", f"not {file.sha256_start}...", str(path)), True
    return (*head, found.origin, found.sha256[:16], str(path)), False


def _where_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("metrics", nargs="*", metavar="METRIC", help="the files of these only")


def _where(arguments: argparse.Namespace) -> int:
    store = _store(arguments)
    say("looked for in this order:")
    for place in store.places():
        say(f"  {place}" + ("" if place.is_dir() else " (not there)"))
    for file in _files_of(arguments.metrics):
        say(f"{file.name}: {store.locate(file) or 'nowhere'}")
    return 0


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a weight file, under any name where its sha256 is known"
    )


def _import(arguments: argparse.Namespace) -> int:
    folder = _store(arguments).places()[0]
    file, path = imported(arguments.file, folder)
    say(f"{path}: weights of {file.extractor}")
    return 0


def _store(arguments: argparse.Namespace) -> WeightStore:
    return WeightStore(folders=() if arguments.weights is None else (arguments.weights,), offline=True)


def _files_of(metrics: Sequence[str]) -> list[WeightFile]:
    """Return the files of the extractors that these metrics read; all files where none is named."""
    if not metrics:
        return list(CATALOGUE)
    read = {METRICS.get(name).extractor for name in metric_names(metrics)}
    return [file for file in CATALOGUE if file.extractor in read]


_WEIGHTS = {
    "check": _Word("Say which files are there, and whether they are what they say.", _check_arguments, _check),
    "where": _Word("Say where files are looked for, and where each one lies.", _where_arguments, _where),
    "import": _Word("Copy a file to where it is looked for first, if it is a known one.", _import_arguments, _import),
}
