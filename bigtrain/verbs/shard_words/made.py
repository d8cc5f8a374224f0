"""Shards made of data sets that scikit-learn ships: `bigtrain shards digits`, `bigtrain shards photos`."""

import argparse
from pathlib import Path

from tqdm import tqdm

from bigtrain.cli import say
from bigtrain.data.digits import write_digits
from bigtrain.data.photos import DEFAULT_COUNT, PhotoOptions, write_photos
from bigtrain.data.pixels import FORMAT_CHANNELS
from bigtrain.verbs.shard_words.arguments import (
    LARGEST_QUALITY,
    Word,
    at_least_one,
    count,
    mover,
    quality_argument,
    summary,
)


def _digits_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to write the shards into")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order in the shards (0)")


def _digits(arguments: argparse.Namespace) -> int:
    say(summary(arguments.dir, write_digits(arguments.dir, arguments.seed)))
    return 0


def _photos_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to write the shards into")
    parser.add_argument("--side", type=int, required=True, metavar="PIXELS", help="side of the stored images")
    parser.add_argument("--count", default=str(DEFAULT_COUNT), help=f"number of crops ({DEFAULT_COUNT})")
    parser.add_argument(
        "--format", choices=list(FORMAT_CHANNELS), default="png", help="how images are stored; png is lossless (png)"
    )
    quality_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the crops (0)")


def _photos(arguments: argparse.Namespace) -> int:
    options = PhotoOptions(
        side=at_least_one("--side", arguments.side),
        count=count("--count", arguments.count),
        image_format=arguments.format,
        quality=at_least_one("--quality", arguments.quality, LARGEST_QUALITY),
        seed=arguments.seed,
    )
    with tqdm(unit=" images", disable=None) as bar:
        index = write_photos(arguments.dir, options, mover(bar))
    say(summary(arguments.dir, index))
    return 0


DIGITS = Word("Write scikit-learn's 1,797 handwritten digits as 32 px shards.", _digits_arguments, _digits)
PHOTOS = Word(
    "Write crops of scikit-learn's two sample photographs as shards without labels.", _photos_arguments, _photos
)
