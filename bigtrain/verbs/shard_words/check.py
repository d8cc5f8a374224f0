"""Everything that can be known about shards without training on them: `bigtrain shards check`."""

import argparse
from pathlib import Path

from tqdm import tqdm

from bigtrain.cli import say
from bigtrain.data.check import Report, check_folder
from bigtrain.data.overview import draw_overview
from bigtrain.recipe.errors import DataError
from bigtrain.verbs.shard_words.arguments import (
    DEFAULTS,
    Word,
    at_least_one,
    classes_line,
    jobs_argument,
    mover,
    summary,
)

EXIT_FAULTS = 1  # something is wrong with the shards
LISTED_FAULTS = 20


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder of shards with its index.json")
    jobs_argument(parser)
    parser.add_argument(
        "--window",
        type=int,
        default=DEFAULTS.shuffle_window_shards,
        metavar="SHARDS",
        help="data.shuffle_window_shards of the training to come (8)",
    )
    parser.add_argument(
        "--decode",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="decode every image (yes); --no-decode reads headers and compares bytes, several times as fast",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE.png",
        help="draw random samples and the class histogram (none)",
    )


def _check(arguments: argparse.Namespace) -> int:
    window_shards = at_least_one("--window", arguments.window)
    with tqdm(unit=" shards", disable=None) as bar:
        report = check_folder(
            arguments.dir,
            window_shards,
            jobs=at_least_one("--jobs", arguments.jobs),
            progress=mover(bar),
            decode=arguments.decode,
        )
    if report.index is not None:
        say(_table(report))
        say(summary(arguments.dir, report.index))
        say(classes_line(report.index))
    if report.is_sorted:
        say(
            f"warning: sorted by class: windows of {window_shards} shards hold {report.mixing:.0%} of the label "
            "entropy of mixed ones; training refuses them unless "
            "data.allow_sorted=true; `bigtrain shards folder` permutes samples"
        )
    if arguments.picture is not None and report.index is not None:
        say(_picture(arguments.dir, arguments.picture))
    for fault in report.faults[:LISTED_FAULTS]:
        say(f"fault: {fault}")
    if len(report.faults) > LISTED_FAULTS:
        say(f"and {len(report.faults) - LISTED_FAULTS} more faults")
    say({0: "no fault", 1: "1 fault"}.get(len(report.faults), f"{len(report.faults)} faults"))
    return EXIT_FAULTS if report.faults else 0


def _picture(folder: Path, path: Path) -> str:
    try:
        draw_overview(folder, path)
    except DataError as error:
        return f"no picture: {error}"
    return f"{path}: random samples and the class histogram"


def _table(report: Report) -> str:
    width = max((len(shard.name) for shard in report.shards), default=0)
    return "\n".join(
        f"{shard.name:<{width}}  {shard.samples:>9} samples  {shard.bytes / 1e6:>9.1f} MB  {len(shard.faults):>4} "
        "faults"
        for shard in report.shards
    )


CHECK = Word("Verify sizes, checksums, labels and every image of a folder of shards.", _check_arguments, _check)
