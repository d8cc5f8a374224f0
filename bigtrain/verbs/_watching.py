"""The options of `bigtrain evaluate RUN --watch`, and what they do."""

import argparse
from pathlib import Path

from bigtrain.cli import say
from bigtrain.engine.processes.preemption import Preemption, SignalWatch
from bigtrain.evaluation.options import Options
from bigtrain.evaluation.run_folders import names_of_runs
from bigtrain.evaluation.session import Session
from bigtrain.evaluation.subjects import Choice
from bigtrain.evaluation.watch import POLL_S, Watcher, WatchOptions
from bigtrain.evaluation.watch_judge import WatchJudge
from bigtrain.evaluation.which import ALL_AVERAGES
from bigtrain.recipe.errors import UsageError

KINDS = ("both", "checkpoints", "snapshots")
NOT_WATCHED = ("json", "record", "truncation_curve", "by")  # options of an evaluation that has one answer


def add_watch_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how a run is watched."""
    group = parser.add_argument_group("beside training")
    group.add_argument(
        "--watch",
        action="store_true",
        help="evaluate each new checkpoint or snapshot of a run once, all its averages, into RUN/evaluations, until "
        "the run is complete; a stop leaves with status 75, and the same command goes on",
    )
    group.add_argument("--once", action="store_true", help="with --watch: end when all that is there is evaluated")
    group.add_argument("--only", choices=KINDS, default=KINDS[0], help="with --watch: what is evaluated (default both)")
    group.add_argument(
        "--poll",
        type=float,
        default=POLL_S,
        metavar="SECONDS",
        help=f"with --watch: between looks at the run (default {POLL_S:g})",
    )


def watch_run(arguments: argparse.Namespace, options: Options, signals: SignalWatch) -> int:
    """Watch a run; return the exit status.

    Raises:
        UsageError: more than one run is named, or an option says something else than to watch.
    """
    options_given = [name for name in NOT_WATCHED if getattr(arguments, name)]
    if options_given or options.choice.checkpoint != Choice.checkpoint:
        name = (options_given or ["checkpoint"])[0].replace("_", "-")
        raise UsageError(f"--watch evaluates all that a run saves, into RUN/evaluations; leave --{name} out")
    if len(arguments.what) != 1:
        raise UsageError(f"--watch takes one run, and {len(arguments.what)} are named; start a watcher for each")
    if names := names_of_runs(Path(arguments.what[0])):
        raise UsageError(f"{arguments.what[0]} holds runs ({names}), and --watch takes one run; name one of them")
    if not arguments.poll > 0:  # nor "nan"
        raise UsageError(f"--poll {arguments.poll:g}: give seconds above 0")
    from bigtrain.engine.processes.launch import join

    launch = join()
    session = Session(options, launch)
    preemption = Preemption(launch.ranks, signals)
    session.between = preemption.give_way
    average = None if options.choice.average in (None, ALL_AVERAGES) else options.choice.average
    watcher = Watcher(
        Path(arguments.what[0]),
        WatchOptions(arguments.once, arguments.only, arguments.poll, average),
        lambda model: WatchJudge(session, model),
        preemption,
        launch.ranks,
        say,
    )
    status = watcher.run()
    launch.leave()
    return status
