"""Shards made of a folder of images: `bigtrain shards folder`."""

import argparse
from pathlib import Path

from tqdm import tqdm

from bigtrain.cli import say
from bigtrain.data.folder import LABELS, FolderOptions, write_folder
from bigtrain.data.pixels import FILTERS, FITS, FORMAT_CHANNELS, MODES
from bigtrain.verbs.shard_words.arguments import (
    LARGEST_QUALITY,
    Word,
    at_least_one,
    count,
    jobs_argument,
    max_pixels_argument,
    mover,
    positive,
    quality_argument,
    summary,
)


def _folder_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", type=Path, metavar="SRC", help="folder of images, one sub-folder for each class")
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to write the shards into")
    parser.add_argument("--size", type=int, required=True, metavar="PIXELS", help="side of the stored images")
    parser.add_argument(
        "--labels",
        choices=list(LABELS),
        default=FolderOptions.labels,
        help="folders: sub-folders are classes; none: no classes, images in SRC and below it (folders)",
    )
    parser.add_argument(
        "--fit", choices=list(FITS), default="crop", help="crop the centre, pad with black, or squash (crop)"
    )
    parser.add_argument(
        "--filter", choices=list(FILTERS), default="lanczos", help="resampling filter, recorded in the index (lanczos)"
    )
    parser.add_argument(
        "--format", choices=list(FORMAT_CHANNELS), default="jpg", help="how images are stored; png is lossless (jpg)"
    )
    quality_argument(parser)
    parser.add_argument(
        "--channels", type=int, choices=list(MODES), default=3, help="1 gray, 3 RGB, 4 RGB and alpha (3)"
    )
    parser.add_argument("--shard-mb", type=float, default=256, metavar="MB", help="size of a shard, about (256)")
    jobs_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the order in the shards (0)")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out files that cannot be used instead of stopping"
    )
    max_pixels_argument(parser)


def _folder(arguments: argparse.Namespace) -> int:
    options = FolderOptions(
        side=at_least_one("--size", arguments.size),
        fit=arguments.fit,
        filter=arguments.filter,
        image_format=arguments.format,
        quality=at_least_one("--quality", arguments.quality, LARGEST_QUALITY),
        channels=arguments.channels,
        shard_mb=positive("--shard-mb", arguments.shard_mb),
        seed=arguments.seed,
        skip_bad=arguments.skip_bad,
        max_pixels=count("--max-pixels", arguments.max_pixels),
        labels=arguments.labels,
    )
    with tqdm(unit=" images", disable=None) as bar:
        report = write_folder(arguments.src, arguments.dir, options, at_least_one("--jobs", arguments.jobs), mover(bar))
    say(summary(arguments.dir, report.index))
    if report.enlarged:
        say(f"{report.enlarged} images were smaller than {options.side} pixels and have been enlarged")
    if report.other_files:
        kinds = [f"{number} {suffix or 'without suffix'}" for suffix, number in sorted(report.other_files.items())]
        say(f"left out, since they are no images: {', '.join(kinds)}")
    for rejection in report.rejections:
        say(f"left out: {rejection.path} {rejection.reason}")
    return 0


FOLDER = Word("Write a folder of images, with or without classes, as shards.", _folder_arguments, _folder)
