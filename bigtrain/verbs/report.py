"""Write one HTML page about a run, or about several beside each other, that opens from disk."""

import argparse
from pathlib import Path

from bigtrain.cli import say
from bigtrain.recipe.errors import EXIT_DONE

DEFAULT_NAME = "report.html"
ENDINGS = (".html", ".htm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the runs and the file."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders; colours go by their order")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help=f"the page (default: {DEFAULT_NAME} in the first run)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the page, whatever was there, and say where; return 0.

    Raises:
        UsageError: a folder is not a run's, the file cannot be written, or the extra `report` is not installed.
    """
    from bigtrain.planning.files import check_ending, check_target, replace  # Jinja2 and plotly take a second to import
    from bigtrain.reports.page import render
    from bigtrain.reports.run import read_runs

    out = arguments.out or arguments.runs[0] / DEFAULT_NAME
    check_ending("--out", out, ENDINGS)
    records = read_runs(arguments.runs)
    check_target(out)
    page = render(records)
    replace(out, page)
    say(f"{out} ({len(page.encode()) / 1e6:.1f} MB)")
    return EXIT_DONE
