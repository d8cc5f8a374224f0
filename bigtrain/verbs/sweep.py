"""Make a job array of a recipe with a grid or list of overrides, and show what its runs came to."""

import argparse
import json
from pathlib import Path

from bigtrain.cli import say
from bigtrain.recipe.errors import EXIT_DONE, UsageError
from bigtrain.recipe.load import load_recipe
from bigtrain.recipe.shipped import shipped_folder

SUFFIX = ".runs"
TEMPLATE = "array.sbatch"
EXAMPLE = """a sweep of four runs:
  recipe: bigtrain:digits-biggan
  set: {total_images: 1M}
  grid:
    optimizers.generator.learning_rate: [1e-4, 2e-4]
    seed: [0, 1]
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sweep and what is written."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLE
    parser.add_argument("sweep", type=Path, help="a YAML file with recipe, set, grid and list")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"file of runs (default: the sweep's, as *{SUFFIX})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write runs and results to this file")
    parser.add_argument("--force", action="store_true", help="replace a file of runs that is there and differs")


def run(arguments: argparse.Namespace) -> int:
    """Write one run a line, and print the command that submits them and a table of results; return 0."""
    if arguments.sweep.is_dir():
        raise UsageError(f"{arguments.sweep} is a folder, not a sweep; name a YAML file with recipe, grid and list")
    out = arguments.out or arguments.sweep.with_suffix(SUFFIX)
    if out == arguments.sweep:
        raise UsageError(f"--out {out} is the sweep itself; name another file")
    if arguments.json in (out, arguments.sweep):
        raise UsageError(f"--json {arguments.json} is the sweep itself or its file of runs; name another file")
    from bigtrain.planning.files import (
        check_target,
        replace,
        write_new,
    )  # torch takes seconds to import; a wrong command line should not
    from bigtrain.planning.sweep import load_sweep
    from bigtrain.reports.results import result_of, table
    from bigtrain.training.log import read_log
    from bigtrain.training.schema import Recipe

    for target in (out, arguments.json):
        if target is not None:
            check_target(target)
    runs = load_sweep(arguments.sweep, lambda name, overrides: load_recipe(name, overrides, Recipe))
    write_new(out, "".join(f"{each.line}\n" for each in runs), arguments.force)
    say(f"{len(runs)} run(s) in {out}; submit them with")
    say(f"  sbatch --array=0-{len(runs) - 1} {_shown(shipped_folder('slurm') / TEMPLATE)} {out}")
    logs = [each.recipe.run_folder / "log.jsonl" for each in runs]
    events = [read_log(log) if log.is_file() else [] for log in logs]
    results = [result_of(each.recipe, seen) for each, seen in zip(runs, events, strict=True)]
    if any(result.folder.is_dir() for result in results):
        say("\n".join(table(results)))
    if arguments.json:
        records = [
            {"index": index, "words": list(each.words), **result.record()}
            for index, (each, result) in enumerate(zip(runs, results, strict=True))
        ]
        replace(arguments.json, json.dumps(records, indent=1) + "\n")
    return EXIT_DONE


def _shown(path: Path) -> Path:
    """Return a path as it is shortest from here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
