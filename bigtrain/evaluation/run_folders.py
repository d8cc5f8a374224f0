"""Which folders are runs, for whoever evaluates: those that hold checkpoints or a recipe, whether or not they have a
log."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

NAMED = 3  # runs in a sentence
LEVELS = 2  # of folders below one that holds runs: a folder of runs for each sweep


def is_run(path: Path) -> bool:
    """Tell whether a path is a run folder."""
    return (path / "checkpoints").is_dir() or (path / "recipe.yaml").is_file()


def run_of(path: Path) -> Path | None:
    """Return the run folder that a checkpoint or snapshot lies in, or the run itself."""
    return next((folder for folder in (path, path.parent.parent) if is_run(folder)), None)


def names_of_runs(folder: Path) -> str:
    """Return the first few runs in a folder as words; empty where it holds none, or is a run itself."""
    if is_run(folder) or not folder.is_dir():
        return ""
    runs = list(islice(runs_in(folder), NAMED + 1))
    return ", ".join(map(str, runs[:NAMED])) + (" and more" if len(runs) > NAMED else "")


def runs_in(folder: Path, levels: int = LEVELS) -> Iterator[Path]:
    """Yield the runs in a folder, itself included, by name; runs hold no runs."""
    if is_run(folder):
        yield folder
    elif levels:
        for inside in sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")):
            yield from runs_in(inside, levels - 1)
