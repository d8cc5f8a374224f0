"""Arguments that several words after `bigtrain shards` share, and what they say of the shards they wrote."""

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bigtrain.data.index import FolderIndex, add_histograms
from bigtrain.data.pairs import IMAGES_EACH
from bigtrain.data.pixels import DEFAULT_QUALITY
from bigtrain.data.settings import DataSettings
from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.units import parse_count

DEFAULTS = DataSettings.model_validate({"shards": ""})
LARGEST_QUALITY = 100
LISTED_CLASSES = 20
_SIZE = re.compile(r"([0-9]{1,5})(?:x([0-9]{1,5}))?")


@dataclass(frozen=True)
class Word:
    """One word after `bigtrain shards`: what it is, its arguments, what it does."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def size_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the size of the stored images."""
    parser.add_argument(
        "--size",
        required=True,
        metavar="PIXELS",
        help="side of the stored images, or height x width: 64x96 is 64 high and 96 wide",
    )


def parse_size(text: str) -> tuple[int, int | None]:
    """Return height and width (None: square) as `--size` says them.

    Raises:
        UsageError: it is neither a side nor height x width.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--size is {text!r}, but must be a side such as 64, or height x width such as 64x96; correct it"
        )
    height, width = (int(length or match[1]) for length in match.groups())
    at_least_one("--size", min(height, width))
    return height, None if width == height else width


def jobs_argument(parser: argparse.ArgumentParser) -> None:
    """Declare how many processes work."""
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (one a core)")


def unlabelled_argument(parser: argparse.ArgumentParser) -> None:
    """Declare what becomes of images without a label among labelled ones."""
    parser.add_argument(
        "--unlabelled",
        choices=["refuse", "keep"],
        default="refuse",
        help="what becomes of images without a label among labelled ones; keep stores them with the label -1, for "
        "games that take such (refuse)",
    )


def keeps_unlabelled(arguments: argparse.Namespace, ignores_labels: bool = False) -> bool:
    """Return whether images without a label are kept.

    Raises:
        UsageError: all labels are ignored as well.
    """
    keeps = bool(arguments.unlabelled == "keep")
    if keeps and ignores_labels:
        raise UsageError("--unlabelled keep means images without a label among labelled ones; leave it out")
    return keeps


def pairing_argument(parser: argparse.ArgumentParser) -> None:
    """Declare what a sample of shards that others wrote is."""
    parser.add_argument(
        "--pairs",
        choices=list(IMAGES_EACH),
        help="members: a sample is KEY.a.png with KEY.b.png; halves: the left and right half of one image; none: every "
        "image is a sample (members where the names say so)",
    )


def max_pixels_argument(parser: argparse.ArgumentParser) -> None:
    """Declare which images are too large to be opened."""
    parser.add_argument(
        "--max-pixels", default=str(DEFAULTS.max_pixels), metavar="COUNT", help="refuse images that claim more (64M)"
    )


def quality_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the quality of lossy formats."""
    parser.add_argument(
        "--quality",
        type=int,
        default=DEFAULT_QUALITY,
        help=f"1..{LARGEST_QUALITY}, of jpg and webp ({DEFAULT_QUALITY})",
    )


def mover(bar: "tqdm[None]") -> Callable[[int, int], None]:
    """Return what moves a bar to (done, total)."""

    def move(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return move


def at_least_one(option: str, value: int, largest: int | None = None) -> int:
    """Return a count that an option gave.

    Raises:
        UsageError: under 1, or over `largest`.
    """
    if value < 1 or (largest is not None and value > largest):
        raise UsageError(
            f"{option} is {value}, but must be at least 1"
            + (f" and at most {largest}" if largest else "")
            + "; correct it"
        )
    return value


def positive(option: str, value: float) -> float:
    """Return a number over 0 that an option gave.

    Raises:
        UsageError: it is not.
    """
    if not value > 0:
        raise UsageError(f"{option} is {value:g}, but must be over 0; correct it")
    return value


def count(option: str, text: str) -> int:
    """Return a count written like 10k.

    Raises:
        UsageError: it is none, or under 1.
    """
    try:
        return at_least_one(option, int(str(parse_count(text))))
    except ValueError as error:
        raise UsageError(f"{option} is {text!r}: {error}") from error


def summary(folder: Path, index: FolderIndex) -> str:
    """Return one line that says what a folder of shards holds."""
    size_mb = sum(entry.bytes for entry in index.shards) / 1e6
    height, width = index.resolution
    things = "images" if index.pairing == "none" else "pairs of images"
    return (
        f"{folder}: {index.num_samples} {things} of {width}x{height}x{index.channels} ({index.image_format}), "
        f"{len(index.classes)} classes, "
        f"{len(index.shards)} shards, {size_mb:.1f} MB"
    )


def classes_line(index: FolderIndex) -> str:
    """Return one line with the samples of each class."""
    counts = add_histograms([entry.class_histogram for entry in index.shards])
    shown = [f"{name} {counts.get(label, 0)}" for label, name in enumerate(index.classes[:LISTED_CLASSES])]
    more = f" and {len(index.classes) - LISTED_CLASSES} more" if len(index.classes) > LISTED_CLASSES else ""
    without = f"; {index.num_unlabelled} without a label" if index.num_unlabelled else ""
    return f"samples a class: {', '.join(shown)}{more}{without}" if shown else "no classes"
