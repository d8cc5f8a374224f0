"""Shards made of images that lie on disk: `bigtrain shards folder`, `zip`, `resize`, `torchvision`, `table`.

They differ in where images are found; how images become samples is the same for all of them.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from bigtrain.cli import say
from bigtrain.data import folder as folders
from bigtrain.data.duplicates import without_duplicates
from bigtrain.data.pack import PackOptions, pack, refuse_format
from bigtrain.data.parts import VALIDATION, Part, merge, split
from bigtrain.data.pixels import FILTERS, FITS, FORMAT_CHANNELS, MODES
from bigtrain.data.sources import archive
from bigtrain.data.sources.found import Found
from bigtrain.data.sources.packaged import PACKAGED, SPLITS, find_packaged
from bigtrain.data.sources.tables import TableOptions, found_in_tables
from bigtrain.data.sources.tars import find_shards
from bigtrain.data.walk import IndexOptions
from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.units import parse_share
from bigtrain.verbs.shard_words.arguments import (
    LARGEST_QUALITY,
    Word,
    at_least_one,
    count,
    jobs_argument,
    keeps_unlabelled,
    max_pixels_argument,
    mover,
    pairing_argument,
    parse_size,
    positive,
    quality_argument,
    size_argument,
    summary,
    unlabelled_argument,
)
from bigtrain.verbs.shard_words.outcome import tell

Finder = Callable[[argparse.Namespace], AbstractContextManager[Found]]
IMAGE_FOLDER = "ImageFolder"  # of torchvision: a folder a class


def form_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how images become samples."""
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to write the shards into")
    size_argument(parser)
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


def writing_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which images are written, and into which shards."""
    parser.add_argument("--shard-mb", type=float, default=256, metavar="MB", help="size of a shard, about (256)")
    jobs_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the order in the shards (0)")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out files that cannot be used instead of stopping"
    )
    parser.add_argument(
        "--duplicates",
        choices=["keep", "drop"],
        default="keep",
        help="what becomes of images whose file another one equals; they are counted either way (keep)",
    )
    parser.add_argument(
        "--val",
        metavar="SHARE",
        help="share of the images that goes to DIR/val instead, such as 5%%, drawn by --seed; with --duplicates drop "
        "no image is in both (none)",
    )
    parser.add_argument(
        "--part",
        metavar="K/N",
        help="write part K of N of the shards, to DIR/part-K-of-N; `bigtrain shards merge DIR` joins them (all)",
    )
    max_pixels_argument(parser)


def pack_options(arguments: argparse.Namespace) -> PackOptions:
    """Return how images become samples.

    Raises:
        UsageError: a value is outside its range, the size is over the limit of pixels, or the format cannot hold the
            channels.
    """
    side, width = parse_size(arguments.size)
    options = PackOptions(
        side=side,
        width=width,
        fit=arguments.fit,
        filter=arguments.filter,
        image_format=arguments.format,
        quality=at_least_one("--quality", arguments.quality, LARGEST_QUALITY),
        channels=arguments.channels,
        shard_mb=positive("--shard-mb", arguments.shard_mb),
        seed=arguments.seed,
        skip_bad=arguments.skip_bad,
        max_pixels=count("--max-pixels", arguments.max_pixels),
        duplicates=arguments.duplicates,
        part=None if arguments.part is None else Part.parse(arguments.part),
    )
    height, width = options.size
    if height * width > options.max_pixels:
        raise UsageError(
            f"--size {arguments.size} makes images of {height * width} pixels, over --max-pixels "
            f"({options.max_pixels}); take a smaller size, or raise that and data.max_pixels in recipes"
        )
    refuse_format(options)
    return options


def run_packing(finder: Finder, arguments: argparse.Namespace) -> int:
    """Find images, write them as shards, and say what became of them."""
    options = pack_options(arguments)
    share = None if arguments.val is None else _share(arguments.val)
    if share is not None and options.part is not None:
        raise UsageError("--val and --part cannot be combined; hold out a part of the training with data.holdout")
    jobs = at_least_one("--jobs", arguments.jobs)
    with finder(arguments) as found:
        for folder, images in _folders(found, arguments.dir, options, share, jobs):
            with tqdm(unit=" images", disable=None) as bar:
                report = pack(images, folder, options, jobs, mover(bar))
            tell(folder, options, report)
    return 0


def _folders(
    found: Found, folder: Path, options: PackOptions, share: float | None, jobs: int
) -> Iterator[tuple[Path, Found]]:
    """Yield each folder to write and the images for it."""
    if share is None:
        yield folder / options.part.folder_name if options.part else folder, found
        return
    if options.duplicates == "drop":
        found, dropped = without_duplicates(found, jobs)
        found = replace(found, notes=(*found.notes, f"{len(dropped)} duplicates were left out before the split"))
    train, validation = split(found, share, options.seed)
    yield folder, train
    yield folder / VALIDATION, validation


def _share(text: str) -> float:
    try:
        return float(str(parse_share(text)))
    except ValueError as error:
        raise UsageError(f"--val is {text!r}: {error}") from error


def _word(text: str, source: Callable[[argparse.ArgumentParser], None], finder: Finder) -> Word:
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        source(parser)
        form_arguments(parser)
        writing_arguments(parser)

    return Word(text, add_arguments, lambda arguments: run_packing(finder, arguments))


def _folder_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", type=Path, metavar="SRC", help="folder of images, one sub-folder for each class")
    parser.add_argument(
        "--labels",
        metavar="WHERE",
        help="folders: sub-folders are classes; none: no classes, images in SRC and below it; csv:FILE or json:FILE: "
        "names and labels (folders; none for pairs)",
    )
    parser.add_argument(
        "--pairs",
        choices=list(folders.PAIRS),
        help="folders: images of one name in SRC/a and SRC/b are a pair; halves: the left and right half of each image "
        "are; labels are those of a (single images)",
    )
    unlabelled_argument(parser)


def _find_folder(arguments: argparse.Namespace) -> AbstractContextManager[Found]:
    if arguments.pairs is None:
        keep = keeps_unlabelled(arguments, arguments.labels == "none")
        return nullcontext(folders.find(arguments.src, arguments.labels or "folders", keep))
    keep = keeps_unlabelled(arguments, arguments.labels in (None, "none"))
    return nullcontext(folders.find_pairs(arguments.src, arguments.pairs, arguments.labels or "none", keep))


def _zip_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", type=Path, metavar="SRC", help="zip file of images")
    parser.add_argument(
        "--labels",
        default="dataset",
        metavar="WHERE",
        help="dataset: of dataset.json, if the zip has one; folders: folders are classes; none; csv:FILE or json:FILE: "
        "names and labels (dataset)",
    )
    unlabelled_argument(parser)


def _find_zip(arguments: argparse.Namespace) -> AbstractContextManager[Found]:
    keep = keeps_unlabelled(arguments, arguments.labels == "none")
    return nullcontext(archive.find_zip(arguments.src, arguments.labels, keep))


def _resize_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", type=Path, metavar="SRC", help="folder of shards, with an index or without")
    parser.add_argument("--label-key", metavar="KEY", help="key of the label in .json members (labels are in .cls)")
    parser.add_argument("--no-labels", action="store_true", help="ignore labels")
    unlabelled_argument(parser)
    pairing_argument(parser)


def _find_shards(arguments: argparse.Namespace) -> AbstractContextManager[Found]:
    if arguments.src.resolve() == arguments.dir.resolve():
        raise UsageError(f"SRC and DIR are both {arguments.src}; write into another folder")
    options = IndexOptions(
        arguments.label_key,
        arguments.no_labels,
        max_pixels=count("--max-pixels", arguments.max_pixels),
        keep_unlabelled=keeps_unlabelled(arguments, arguments.no_labels),
        pairing=arguments.pairs,
    )
    return nullcontext(find_shards(arguments.src, options, arguments.jobs))


def _torchvision_source(parser: argparse.ArgumentParser) -> None:
    names = [*PACKAGED, IMAGE_FOLDER]
    parser.add_argument("name", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument(
        "root", type=Path, metavar="ROOT", help="folder that torchvision calls root; nothing is downloaded"
    )
    parser.add_argument("--split", choices=list(SPLITS), default="train", help="part of the data set (train)")


def _find_packaged(arguments: argparse.Namespace) -> AbstractContextManager[Found]:
    if arguments.name == IMAGE_FOLDER:
        return nullcontext(folders.find_image_folder(arguments.root, arguments.split))
    return nullcontext(find_packaged(arguments.name, arguments.root, arguments.split))


def _table_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", type=Path, metavar="SRC", help="Parquet or Arrow file, or a folder of them")
    parser.add_argument("--image-column", metavar="NAME", help="column of images (the only one that can hold them)")
    parser.add_argument("--label-column", default="label", metavar="NAME", help="column of labels (label)")
    parser.add_argument("--no-labels", action="store_true", help="ignore labels")
    unlabelled_argument(parser)


def _find_tables(arguments: argparse.Namespace) -> AbstractContextManager[Found]:
    label = None if arguments.no_labels else arguments.label_column
    options = TableOptions(arguments.image_column, label, keeps_unlabelled(arguments, arguments.no_labels))
    return found_in_tables(arguments.src, arguments.dir, options)


FOLDER = _word("Write a folder of images, with or without classes, as shards.", _folder_source, _find_folder)
ZIP = _word("Write a zip of images, with the labels of its dataset.json, as shards.", _zip_source, _find_zip)
RESIZE = _word("Write the images of shards as shards of another size or form.", _resize_source, _find_shards)
TORCHVISION = _word("Write a data set that torchvision reads from disk as shards.", _torchvision_source, _find_packaged)
TABLE = _word("Write images in Parquet or Arrow files as shards.", _table_source, _find_tables)


def _merge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder that holds the parts, all of them")


def _merge(arguments: argparse.Namespace) -> int:
    say(summary(arguments.dir, merge(arguments.dir)))
    say(f"the parts in {arguments.dir} are not needed any more")
    return 0


MERGE = Word("Join the parts that --part wrote into one data set.", _merge_arguments, _merge)
