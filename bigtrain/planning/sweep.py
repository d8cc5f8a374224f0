"""A sweep: one recipe and sets of overrides, as a file with one run a line for a job array.

recipe: bigtrain:digits-biggan        # or a path, relative to the sweep file
set: {total_images: 1M}               # in every run
grid:                                 # every combination
  optimizers.generator.learning_rate: [1e-4, 2e-4]
  seed: [0, 1]
list:                                 # each of them with every combination
  - {batch_images: 64}
  - {batch_images: 128, batchnorm_images: 64}
"""

import itertools
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from bigtrain.planning.recipe import Planned
from bigtrain.recipe.document import RecipeDumper
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.load import find_recipe, load_recipe
from bigtrain.recipe.settings import Settings
from bigtrain.recipe.shipped import PREFIX

LONGEST_NAME = 120  # characters of a run's name, which becomes a folder; a longer one is cut and numbered
OWN_KEYS = ("name", "run_dir")  # which every run of a sweep has to itself


class SweepSettings(Settings):
    """Which runs to make of one recipe."""

    recipe: str
    """The recipe: `bigtrain:NAME`, or a path relative to this file."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What names of runs begin with; None: the recipe's name."""
    run_dir: str | None = None
    """Folder that holds a folder for each run; None: runs/FILE-sweep, after the name of this file."""
    set: dict[str, Any] = {}
    """Overrides of all runs."""
    grid: dict[str, tuple[Any, ...]] = {}
    """Values of each key, of which every combination is a run."""
    list: tuple[dict[str, Any], ...] = ()
    """Sets of overrides, each of which is a run (with every combination of the grid)."""

    def problems(self) -> Iterator[str]:
        """Yield one sentence for each rule between keys that is broken."""
        if not self.grid and not self.list:
            yield "grid: is missing, and so is list, so there is nothing to vary; give keys with lists of values"
        places = [("set", self.set), ("grid", self.grid), *(("list", entry) for entry in self.list)]
        for place, keys in places:
            for key in (key for key in OWN_KEYS if key in keys):
                yield f"{place}.{key}: every run gets its own; give `{key}` beside `recipe` instead, for all of them"
        for key in (key for key, values in self.grid.items() if not values):
            yield f"grid.{key}: has no values, so there would be no run; give some, or remove the key"
        for key in sorted({key for entry in self.list for key in entry} & self.grid.keys()):
            yield f"grid.{key}: is varied by list as well; keep it in one of them"

    def choices(self) -> Iterator[dict[str, Any]]:
        """Yield what is set in each run besides `set`; the grid's last key varies first."""
        for entry in self.list or ({},):
            for values in itertools.product(*self.grid.values()):
                yield {**entry, **dict(zip(self.grid, values, strict=True))}


@dataclass(frozen=True)
class SweepRun:
    """One line of a sweep file."""

    words: tuple[str, ...]
    """The recipe and its overrides."""
    recipe: Planned

    @property
    def line(self) -> str:
        """The words, quoted as for a shell."""
        return shlex.join(self.words)


def load_sweep(path: Path, read: Callable[[str, Sequence[str]], Planned]) -> list[SweepRun]:
    """Return the runs of a sweep file, each read as it would be at its start.

    Args:
        path: of the sweep file.
        read: gives the recipe of a name and overrides.

    Raises:
        RecipeError: the sweep or any of its runs is wrong; `problems` lists all of it, each run's with its number.
    """
    if path.is_file() and not path.read_bytes().strip():
        raise RecipeError(f"{path}: the file is empty; write `recipe: bigtrain:NAME` and a `grid` or `list` to vary")
    sweep = load_recipe(path, [], SweepSettings)
    source = sweep.recipe
    if not source.startswith(PREFIX):
        source = str(find_recipe(source, path.parent))
    prefix = sweep.name or read(source, [text_of(key, value) for key, value in sweep.set.items()]).name
    choices = list(sweep.choices())
    parent = Path(sweep.run_dir or f"runs/{path.stem}-sweep")
    runs, problems = [], _repeated(choices)
    for index, (choice, suffix) in enumerate(zip(choices, suffixes(choices), strict=True)):
        name = f"{prefix}-{suffix}"[:LONGEST_NAME] if len(suffix) < LONGEST_NAME // 2 else f"{prefix}-{index}"
        settings = {**sweep.set, **choice, "name": name, "run_dir": str(parent / name)}
        words = (source, *(text_of(key, value) for key, value in settings.items()))
        try:
            runs.append(SweepRun(words, read(source, words[1:])))
        except RecipeError as error:
            problems += [f"run {index} ({name}): {problem}" for problem in error.problems]
    if problems:
        raise RecipeError(problems)
    return runs


def text_of(key: str, value: Any) -> str:
    """Return an override as the command line takes it, on one line."""
    written = yaml.dump(value, Dumper=RecipeDumper, default_flow_style=True, allow_unicode=True, width=2**31)
    plain = written.strip().removesuffix("...").strip()  # PyYAML ends a lone scalar with a line of dots
    return f"{key}={plain}"


def suffixes(choices: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what tells each run from the others, such as `learning_rate0.0001-seed1`: the keys that differ between
    runs, by as much of their end as is unique, with their values; a number is added where names are still the same."""
    keys = list(dict.fromkeys(key for choice in choices for key in choice))
    varied = [key for key in keys if len({repr(choice.get(key)) for choice in choices}) > 1]
    short = _short_names(varied)
    names = [
        "-".join(_plain(f"{short[key]}{choice[key]}") for key in varied if key in choice) or "base"
        for choice in choices
    ]
    repeated = Counter(names)
    return [name if repeated[name] == 1 else f"{name}-{index}" for index, name in enumerate(names)]


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest end of each dotted key that no other key has."""

    def end(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    found = {}
    for key in keys:
        parts = 1
        while parts < key.count(".") + 1 and any(
            end(other, parts) == end(key, parts) for other in keys if other != key
        ):
            parts += 1
        found[key] = end(key, parts)
    return found


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")


def _repeated(choices: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each run that is there twice."""
    first: dict[str, int] = {}
    sentences = []
    for index, choice in enumerate(choices):
        key = repr(sorted(choice.items()))
        if first.setdefault(key, index) != index:
            sentences.append(f"run {index} is run {first[key]} once more ({dict(choice)}); remove one of both")
    return sentences
