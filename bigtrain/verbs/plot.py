"""Draw figures of runs for a paper, as PDF, PNG or SVG, and as a LaTeX table."""

import argparse
from pathlib import Path

from bigtrain.cli import say
from bigtrain.recipe.errors import EXIT_DONE, UsageError

AXES = ("images", "steps", "hours")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the runs, the figures and the files."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders; colours go by their order")
    parser.add_argument("--y", required=True, metavar="NAMES", help="figures, such as fid or loss_generator,r1")
    parser.add_argument("--x", choices=AXES, default="images", help="horizontal axis (default: images)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the plot: .pdf, .png or .svg")
    parser.add_argument("--tex", type=Path, metavar="FILE", help="a LaTeX table, its protocol in a footnote")
    parser.add_argument(
        "--smooth",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="average curves of the log; 0.9 keeps 0.9 of the past",
    )
    parser.add_argument("--log", action="store_true", help="logarithmic vertical axis")


def run(arguments: argparse.Namespace) -> int:
    """Write what is asked for, whatever was there, and say where and by which protocol; return 0.

    Raises:
        UsageError: a folder is not a run's, a figure is not known, a file cannot be written or has another ending, or
            the extra `report` is not installed.
    """
    if arguments.out is None and arguments.tex is None:
        raise UsageError("there is nothing to write; give --out FILE.pdf, --tex FILE.tex, or both")
    if not 0 <= arguments.smooth < 1:
        raise UsageError(f"--smooth {arguments.smooth:g} is not a share; give a number from 0 up to 1, such as 0.9")
    from bigtrain.planning.files import check_ending, check_target, replace, replace_bytes
    from bigtrain.reports.latex import latex
    from bigtrain.reports.lines import check_figures, lines_of
    from bigtrain.reports.plot import draw, format_of
    from bigtrain.reports.run import read_runs

    if arguments.tex is not None:
        check_ending("--tex", arguments.tex, (".tex",))
    for target in (arguments.out, arguments.tex):
        if target is not None:
            check_target(target)
    form = format_of(arguments.out) if arguments.out is not None else ""
    names = [name.strip() for name in arguments.y.split(",") if name.strip()]
    if not names:
        raise UsageError("--y names no figure; give one, such as fid")
    records = read_runs(arguments.runs)
    check_figures(records, names)
    if arguments.out is not None:
        replace_bytes(arguments.out, draw(records, names, arguments.x, form, arguments.smooth, arguments.log))
        say(arguments.out)
    if arguments.tex is not None:
        replace(arguments.tex, latex(records, names))
        say(arguments.tex)
    for name in names:
        lines = lines_of(records, name, arguments.x)
        for label in (
            record.label for number, record in enumerate(records) if number not in {each.run for each in lines}
        ):
            say(f"{label} has no {name} over {arguments.x}")
        protocols = list(dict.fromkeys(line.protocol for line in lines if line.protocol))
        if protocols:
            differ = "; they differ: these lines do not compare" if len(protocols) > 1 else ""
            say(f"{name}: by {', '.join(protocols)}{differ}")
    return EXIT_DONE
