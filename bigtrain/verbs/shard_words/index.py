"""An index for shards that others wrote: `bigtrain shards index`."""

import argparse
from pathlib import Path

from tqdm import tqdm

from bigtrain.cli import say
from bigtrain.data.foreign import index_folder
from bigtrain.data.walk import IndexOptions
from bigtrain.recipe.errors import UsageError
from bigtrain.verbs.shard_words.arguments import (
    Word,
    at_least_one,
    classes_line,
    count,
    jobs_argument,
    keeps_unlabelled,
    max_pixels_argument,
    mover,
    pairing_argument,
    summary,
    unlabelled_argument,
)


def _index_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder of WebDataset shards; only the index is written")
    parser.add_argument(
        "--label-key", metavar="KEY", help="key of the label in .json members, such as meta.class (labels are in .cls)"
    )
    parser.add_argument("--no-labels", action="store_true", help="ignore labels")
    unlabelled_argument(parser)
    pairing_argument(parser)
    jobs_argument(parser)
    max_pixels_argument(parser)


def _index(arguments: argparse.Namespace) -> int:
    if arguments.no_labels and arguments.label_key is not None:
        raise UsageError(f"--label-key {arguments.label_key} and --no-labels contradict each other; leave one out")
    options = IndexOptions(
        arguments.label_key,
        arguments.no_labels,
        max_pixels=count("--max-pixels", arguments.max_pixels),
        keep_unlabelled=keeps_unlabelled(arguments, arguments.no_labels),
        pairing=arguments.pairs,
    )
    with tqdm(unit=" shards", disable=None) as bar:
        report = index_folder(arguments.dir, options, at_least_one("--jobs", arguments.jobs), mover(bar))
    say(summary(arguments.dir, report.index))
    say(classes_line(report.index))
    if report.left_out:
        kinds = [f"{number} .{extension}" for extension, number in sorted(report.left_out.items())]
        say(f"left out, since no sample needs them: {', '.join(kinds)}")
    for name in report.empty_shards:
        say(f"left out: {name}, which holds no image")
    return 0


INDEX = Word(
    "Write the index of WebDataset shards that others made; the shards stay as they are.", _index_arguments, _index
)
