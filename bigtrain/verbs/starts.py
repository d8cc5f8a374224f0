"""Show when a run was started and how that ended; for batch scripts, whether to start it once more."""

import argparse
import os

from bigtrain.cli import say
from bigtrain.recipe.errors import EXIT_DONE, NoProgressError, UsageError
from bigtrain.recipe.load import load_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe, the overrides, and the status that training left with."""
    parser.add_argument("recipe", help="a recipe file, or bigtrain:NAME for one that ships with the package")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the recipe's")
    parser.add_argument(
        "--after",
        type=int,
        metavar="STATUS",
        help="inside a SLURM job: note that its training left with this exit status; leave with 0 if it should start "
        "again, with 7 if three starts in a row came no further, else with the status that says why not",
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the starts; return 0, and with `--after` what `after_crash` says.

    Raises:
        UsageError: `--after` outside a SLURM job, where there is no start to note; or the folder cannot be read.
        NoProgressError: `--after`, and one more start would be the fourth that comes to nothing; status.json says so.
    """
    if arguments.after is not None and "SLURM_JOB_ID" not in os.environ:
        raise UsageError(
            f"--after {arguments.after} is for batch scripts, and this is no SLURM job (no SLURM_JOB_ID); leave "
            "it out to list the starts"
        )
    from bigtrain.training.schema import Recipe  # torch takes seconds to import; a wrong command line should not
    from bigtrain.training.starts import after_crash, read_ledger
    from bigtrain.training.status import failed, write_status

    folder = load_recipe(arguments.recipe, arguments.overrides, Recipe).run_folder
    status = EXIT_DONE
    try:
        if arguments.after is not None:
            status = after_crash(folder, arguments.after)
        ledger = read_ledger(folder)
    except NoProgressError as error:
        write_status(folder, failed(error))
        raise
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}; name another run_dir") from error
    if not ledger:
        say(f"{folder}: no starts yet")
    for start in ledger:
        job = f"job {start.job}, restart {start.restart}" if start.job else "by hand"
        say(f"{start.since}  {job}  from {start.images_seen:,} images  {start.ended or 'runs, or was killed'}")
    return status
