"""Draw images from a run, a checkpoint or a snapshot: a grid, single PNG files, or an .npz."""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from bigtrain.cli import say
from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.settings import LARGEST_BATCH_IMAGES
from bigtrain.sampling.files import save_folder, save_npz, save_png
from bigtrain.sampling.grids import grid, square_columns
from bigtrain.training.loaded import LoadedModel, load
from bigtrain.training.sampler import StandingSettings, cycle_labels

LARGEST_NUMBER = 2**63 - 1  # of an image: they are int64
MOST = {"count": 10_000_000, "steps": 10_000, "columns": 10_000}  # all are held in memory before they are written


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is drawn and where it goes."""
    parser.add_argument("model", help="RUN, RUN/checkpoints/IMAGES or RUN/snapshots/FILE")
    parser.add_argument("--count", type=int, help="number of images (64 unless --index is given)")
    parser.add_argument("--index", help="numbers of the images wanted, such as 3,17,42")
    parser.add_argument(
        "--labels", help="classes by number or name, image i has the one at i modulo their number, such as 0,1,2"
    )
    parser.add_argument("--between", help="numbers of two images, such as 3,17: draw the way from one to the other")
    parser.add_argument("--steps", type=int, default=8, help="images on that way, both ends included (default 8)")
    parser.add_argument(
        "--truncation",
        default="none",
        help="none; LAW:THRESHOLD with LAW resample, scale, std or clamp; or, for generators with styles, "
        "psi:P[:LAYERS], which moves styles toward their average (1: not at all, 0: onto it), the first LAYERS or all",
    )
    parser.add_argument("--seed", type=int, default=0, help="which images (default 0)")
    parser.add_argument(
        "--average", help="which moving average of the weights, such as ema-20000 (default: the recipe's first)"
    )
    parser.add_argument("--columns", type=int, help="images in a row of the grid (default: as square as can be)")
    parser.add_argument(
        "--standing", default="16x256", help="batches x images for BatchNorm's statistics (default 16x256)"
    )
    parser.add_argument("--out", type=Path, help="write a grid to this PNG file")
    parser.add_argument("--folder", type=Path, help="write single PNG files to this folder")
    parser.add_argument(
        "--npz", type=Path, help="write uint8 NHWC images (and labels where --labels says them) to this file"
    )


def run(arguments: argparse.Namespace) -> int:
    """Draw and write; return 0."""
    if not (arguments.out or arguments.folder or arguments.npz):
        raise UsageError("nowhere to write the images; add --out FILE.png, --folder DIR or --npz FILE.npz")
    _check_sizes(arguments)
    labels = arguments.labels.split(",") if arguments.labels else None
    model = load(arguments.model, arguments.average)
    images, names, label_N = (_way if arguments.between else _drawn)(arguments, model, labels)
    for written in _write(arguments, images, names, label_N):
        say(str(written))
    return 0


Drawn = tuple[Tensor, list[str], Tensor | None]
"""Images, the names of their files, and their labels where they were asked for."""


def _drawn(arguments: argparse.Namespace, model: LoadedModel, labels: list[str] | None) -> Drawn:
    index = None if arguments.index is None else numbers_of("--index", arguments.index)
    count = arguments.count if index is not None or arguments.count is not None else 64
    images = model.sample(
        count, labels=labels, truncation=arguments.truncation, seed=arguments.seed, index=index,
        standing=standing_of(arguments.standing),
    )  # fmt: skip
    numbers = list(range(len(images))) if index is None else index
    names = [f"{number:06d}" for number in numbers]
    label_N = cycle_labels(model.labels(labels), torch.tensor(numbers)) if labels else None
    return images, names, label_N


def _way(arguments: argparse.Namespace, model: LoadedModel, labels: list[str] | None) -> Drawn:
    ends = numbers_of("--between", arguments.between)
    if len(ends) != 2 or (labels is not None and len(labels) > 2):
        raise UsageError(
            f"--between {arguments.between} --labels {arguments.labels}: write two images and at most two classes, "
            "such as --between 3,17 --labels 1,7"
        )
    classes = None if labels is None else (labels[0], labels[-1])
    images = model.interpolate(
        (ends[0], ends[1]), labels=classes, steps=arguments.steps, truncation=arguments.truncation, seed=arguments.seed,
        standing=standing_of(arguments.standing),
    )  # fmt: skip
    return images, [f"{step:03d}" for step in range(len(images))], None


def _write(arguments: argparse.Namespace, images: Tensor, names: list[str], label_N: Tensor | None) -> list[Path]:
    written = []
    if arguments.out:
        written.append(
            save_png(
                arguments.out,
                grid(images, arguments.columns or (len(images) if arguments.between else square_columns(len(images)))),
            )
        )
    if arguments.folder:
        save_folder(arguments.folder, images, names)
        written.append(arguments.folder)
    if arguments.npz:
        written.append(save_npz(arguments.npz, images, label_N))
    return written


def _check_sizes(arguments: argparse.Namespace) -> None:
    for name, most in MOST.items():
        value = getattr(arguments, name)
        if value is not None and not 1 <= value <= most:
            raise UsageError(f"--{name} {value}: 1 to {most:,} are possible; write such a number")


def numbers_of(option: str, text: str) -> list[int]:
    """Return the whole numbers that an option lists; UsageError where it does not."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"{option} {text}: not a list of whole numbers; write them with commas, such as 3,17,42"
        ) from error
    if any(not 0 <= number <= LARGEST_NUMBER for number in numbers):
        raise UsageError(f"{option} {text}: images have the numbers 0 to {LARGEST_NUMBER}; name such")
    return numbers


def standing_of(text: str) -> StandingSettings:
    """Return what `BATCHESxIMAGES` says; UsageError where it does not."""
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--standing {text}: not BATCHESxIMAGES; write for example 16x256")
    check_batch("--standing", text, int(parts[1]))
    return StandingSettings(int(parts[0]), int(parts[1]))


def check_batch(option: str, text: str, num_images: int) -> None:
    """Refuse images of one forward pass that no memory holds; UsageError says how many are possible."""
    if not 1 <= num_images <= LARGEST_BATCH_IMAGES:
        raise UsageError(f"{option} {text}: a batch has 1 to {LARGEST_BATCH_IMAGES:,} images; write such a number")
