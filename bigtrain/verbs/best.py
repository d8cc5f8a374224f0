"""Show how a run's evaluations rank, and where the best weights are."""

import argparse
import json
from pathlib import Path

from bigtrain.cli import say
from bigtrain.evaluation.best import best_weights, kept_only, only_standing, standings, table
from bigtrain.recipe.errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the run, and what it is ranked by."""
    parser.add_argument("run", type=Path, help="a run folder, such as runs/digits-biggan")
    parser.add_argument(
        "--by",
        metavar="FIGURE",
        help="figure to rank by, such as fid, recall or fd_classifier (default: the recipe's checkpoint.keep_best_by)",
    )
    parser.add_argument("--average", metavar="NAME", help="this moving average alone, such as ema-20000 (default: all)")
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        help="this protocol alone, by its name in a file's name or the beginning of it (default: all)",
    )
    parser.add_argument("--kept", action="store_true", help="only those whose checkpoint or snapshot is still there")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--path", action="store_true", help="print the path of the best weights and nothing else")
    shown.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print; return 0.

    Raises:
        UsageError: there is no such evaluation; with `--path` also: the best weights are gone, or several protocols
            have the figure.
    """
    found = standings(arguments.run, arguments.by, arguments.average, arguments.protocol)
    if arguments.kept:
        found = [kept_only(each) for each in found]
    if arguments.path:
        say(best_weights(only_standing(found)))
        return EXIT_DONE
    if arguments.json:
        say(json.dumps([each.as_json() for each in found], indent=1))
        return EXIT_DONE
    for number, standing in enumerate(found):
        say(("\n" if number else "") + "\n".join(table(standing)))
    if len(found) > 1:
        say(f"\n{len(found)} protocols: their figures do not compare")
    return EXIT_DONE
