"""Write and check the tar shards that training reads: digits, photos, folder, check.

Each row of `_SHARDS` is one word after `bigtrain shards`: what it is, its arguments, what it does.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bigtrain.cli import say
from bigtrain.data.check import Report, check_folder
from bigtrain.data.digits import write_digits
from bigtrain.data.folder import LABELS, FolderOptions, write_folder
from bigtrain.data.index import FolderIndex, add_histograms
from bigtrain.data.photos import DEFAULT_COUNT, PhotoOptions, write_photos
from bigtrain.data.pixels import DEFAULT_QUALITY, FILTERS, FITS, FORMAT_CHANNELS, MODES
from bigtrain.data.settings import DataSettings
from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.units import parse_count

EXIT_FAULTS = 1  # of `check`: something is wrong with the shards
DEFAULTS = DataSettings.model_validate({"shards": ""})
LISTED_FAULTS = 20
LISTED_CLASSES = 20
LARGEST_QUALITY = 100


@dataclass(frozen=True)
class _Word:
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words and their arguments."""
    words = parser.add_subparsers(dest="word", required=True, metavar="WORD")
    for name, word in _SHARDS.items():
        word.add_arguments(words.add_parser(name, help=word.help, description=word.help))


def run(arguments: argparse.Namespace) -> int:
    """Do what the word says; return the exit status."""
    return _SHARDS[arguments.word].run(arguments)


def _digits_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to write the shards into")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order in the shards (0)")


def _digits(arguments: argparse.Namespace) -> int:
    say(_summary(arguments.dir, write_digits(arguments.dir, arguments.seed)))
    return 0


def _photos_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to write the shards into")
    parser.add_argument("--side", type=int, required=True, metavar="PIXELS", help="side of the stored images")
    parser.add_argument("--count", default=str(DEFAULT_COUNT), help=f"number of crops ({DEFAULT_COUNT})")
    parser.add_argument(
        "--format", choices=list(FORMAT_CHANNELS), default="png", help="how images are stored; png is lossless (png)"
    )
    _quality_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the crops (0)")


def _photos(arguments: argparse.Namespace) -> int:
    options = PhotoOptions(
        side=_at_least_one("--side", arguments.side),
        count=_count("--count", arguments.count),
        image_format=arguments.format,
        quality=_at_least_one("--quality", arguments.quality, LARGEST_QUALITY),
        seed=arguments.seed,
    )
    with tqdm(unit=" images", disable=None) as bar:
        index = write_photos(arguments.dir, options, _mover(bar))
    say(_summary(arguments.dir, index))
    return 0


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
    _quality_argument(parser)
    parser.add_argument(
        "--channels", type=int, choices=list(MODES), default=3, help="1 gray, 3 RGB, 4 RGB and alpha (3)"
    )
    parser.add_argument("--shard-mb", type=float, default=256, metavar="MB", help="size of a shard, about (256)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (one a core)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order in the shards (0)")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out files that cannot be used instead of stopping"
    )
    parser.add_argument(
        "--max-pixels", default=str(DEFAULTS.max_pixels), metavar="COUNT", help="refuse images that claim more (64M)"
    )


def _folder(arguments: argparse.Namespace) -> int:
    options = FolderOptions(
        side=_at_least_one("--size", arguments.size),
        fit=arguments.fit,
        filter=arguments.filter,
        image_format=arguments.format,
        quality=_at_least_one("--quality", arguments.quality, LARGEST_QUALITY),
        channels=arguments.channels,
        shard_mb=_positive("--shard-mb", arguments.shard_mb),
        seed=arguments.seed,
        skip_bad=arguments.skip_bad,
        max_pixels=_count("--max-pixels", arguments.max_pixels),
        labels=arguments.labels,
    )
    with tqdm(unit=" images", disable=None) as bar:
        report = write_folder(
            arguments.src, arguments.dir, options, _at_least_one("--jobs", arguments.jobs), _mover(bar)
        )
    say(_summary(arguments.dir, report.index))
    if report.enlarged:
        say(f"{report.enlarged} images were smaller than {options.side} pixels and have been enlarged")
    if report.other_files:
        kinds = [f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(report.other_files.items())]
        say(f"left out, since they are no images: {', '.join(kinds)}")
    for rejection in report.rejections:
        say(f"left out: {rejection.path} {rejection.reason}")
    return 0


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder of shards with its index.json")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (one a core)")
    parser.add_argument(
        "--window",
        type=int,
        default=DEFAULTS.shuffle_window_shards,
        metavar="SHARDS",
        help="data.shuffle_window_shards of the training to come (8)",
    )


def _check(arguments: argparse.Namespace) -> int:
    window_shards = _at_least_one("--window", arguments.window)
    with tqdm(unit=" shards", disable=None) as bar:
        report = check_folder(
            arguments.dir, window_shards, jobs=_at_least_one("--jobs", arguments.jobs), progress=_mover(bar)
        )
    if report.index is not None:
        say(_table(report))
        say(_summary(arguments.dir, report.index))
        say(_classes(report.index))
    if report.is_sorted:
        say(
            f"warning: sorted by class: windows of {window_shards} shards hold {report.mixing:.0%} of the label "
            "entropy of mixed ones; training refuses them unless "
            "data.allow_sorted=true; `bigtrain shards folder` permutes samples"
        )
    for fault in report.faults[:LISTED_FAULTS]:
        say(f"fault: {fault}")
    if len(report.faults) > LISTED_FAULTS:
        say(f"and {len(report.faults) - LISTED_FAULTS} more faults")
    say(f"{len(report.faults)} faults" if report.faults else "no fault")
    return EXIT_FAULTS if report.faults else 0


def _summary(folder: Path, index: FolderIndex) -> str:
    size_mb = sum(entry.bytes for entry in index.shards) / 1e6
    height, width = index.resolution
    return (
        f"{folder}: {index.num_samples} images of {width}x{height}x{index.channels} ({index.image_format}), "
        f"{len(index.classes)} classes, "
        f"{len(index.shards)} shards, {size_mb:.1f} MB"
    )


def _table(report: Report) -> str:
    width = max((len(shard.name) for shard in report.shards), default=0)
    return "\n".join(
        f"{shard.name:<{width}}  {shard.samples:>9} samples  {shard.bytes / 1e6:>9.1f} MB  {len(shard.faults):>4} "
        "faults"
        for shard in report.shards
    )


def _classes(index: FolderIndex) -> str:
    counts = add_histograms([entry.class_histogram for entry in index.shards])
    shown = [f"{name} {counts.get(label, 0)}" for label, name in enumerate(index.classes[:LISTED_CLASSES])]
    more = f" and {len(index.classes) - LISTED_CLASSES} more" if len(index.classes) > LISTED_CLASSES else ""
    return f"samples a class: {', '.join(shown)}{more}" if shown else "no classes"


def _quality_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quality",
        type=int,
        default=DEFAULT_QUALITY,
        help=f"1..{LARGEST_QUALITY}, of jpg and webp ({DEFAULT_QUALITY})",
    )


def _mover(bar: "tqdm[None]") -> Callable[[int, int], None]:
    def move(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return move


def _at_least_one(option: str, value: int, largest: int | None = None) -> int:
    if value < 1 or (largest is not None and value > largest):
        raise UsageError(
            f"{option} is {value}, but must be at least 1"
            + (f" and at most {largest}" if largest else "")
            + "; correct it"
        )
    return value


def _positive(option: str, value: float) -> float:
    if not value > 0:
        raise UsageError(f"{option} is {value:g}, but must be over 0; correct it")
    return value


def _count(option: str, text: str) -> int:
    try:
        return _at_least_one(option, int(str(parse_count(text))))
    except ValueError as error:
        raise UsageError(f"{option} is {text!r}: {error}") from error


_SHARDS = {
    "digits": _Word("Write scikit-learn's 1,797 handwritten digits as 32 px shards.", _digits_arguments, _digits),
    "photos": _Word(
        "Write crops of scikit-learn's two sample photographs as shards without labels.", _photos_arguments, _photos
    ),
    "folder": _Word("Write a folder of images, with or without classes, as shards.", _folder_arguments, _folder),
    "check": _Word("Verify sizes, checksums, labels and every image of a folder of shards.", _check_arguments, _check),
}
