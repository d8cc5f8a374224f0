"""A folder of images, with or without classes, as shards: in parallel, and with the same bytes for the same input.

What goes into which shard is fixed before any process starts: files sorted, permuted by the seed, and cut by count.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bigtrain.data.decode import DEFAULT_MAX_PIXELS
from bigtrain.data.index import NO_LABEL, FolderIndex
from bigtrain.data.pixels import DEFAULT_QUALITY, FORMAT_CHANNELS, encode, fit, open_image
from bigtrain.data.process import run_jobs
from bigtrain.data.shuffle import permutation
from bigtrain.data.writer import Encoded, WrittenShard, commit, write_shard, writing
from bigtrain.recipe.errors import DataError, UsageError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
PROBED_IMAGES = 64  # encoded once more beforehand to learn the mean size
TAR_OVERHEAD_BYTES = 2048  # two headers, a label and padding
MEGABYTE = 1_000_000
NAMED_REJECTIONS = 5  # in the message


@dataclass(frozen=True)
class FolderOptions:
    """How images become samples; recorded in the index."""

    side: int
    fit: str = "crop"
    filter: str = "lanczos"
    image_format: str = "jpg"
    quality: int = DEFAULT_QUALITY
    channels: int = 3
    shard_mb: float = 256
    seed: int = 0
    skip_bad: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    labels: str = "folders"
    """Where labels come from, a name of LABELS."""


@dataclass(frozen=True)
class Source:
    """One image file and its label; -1: none."""

    path: Path
    label: int


@dataclass(frozen=True)
class Found:
    """What lies under a source."""

    classes: tuple[str, ...]
    """Name of each label 0..n-1; empty where images have no labels."""
    sources: list[Source]
    """The images, in a fixed order."""
    other_files: dict[str, int]
    """Files that are no images, by suffix."""


@dataclass(frozen=True)
class Rejection:
    """A file that did not become a sample, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class FolderReport:
    """What was written, what was enlarged or left out."""

    index: FolderIndex
    rejections: tuple[Rejection, ...]
    enlarged: int
    """Images that were smaller than the size asked for."""
    other_files: dict[str, int]
    """Files that are no images, by suffix."""


@dataclass(frozen=True)
class _Job:
    number: int
    first_key: int
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class _Done:
    shard: WrittenShard
    rejections: tuple[Rejection, ...]
    enlarged: int


def write_folder(
    source: Path,
    folder: Path,
    options: FolderOptions,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FolderReport:
    """Write the images under `source` as shards into `folder`, replacing the shards there.

    Args:
        source: one sub-folder a class; its name names the class, and labels follow the sorted names. With
            `options.labels` "none": images in it and in its sub-folders, which get no labels.
        folder: where the shards go; must not lie inside `source`.
        options: size, fit, format, labels.
        jobs: processes; the result does not depend on it.
        progress: called with (images done, images in all).

    Raises:
        DataError: no classes, no images, a file that cannot be used (unless `options.skip_bad`), or another writer.
        UsageError: the format cannot hold the channels.
    """
    if options.channels not in FORMAT_CHANNELS[options.image_format]:
        raise UsageError(
            f"--format {options.image_format} cannot hold {options.channels} channels (it holds "
            f"{FORMAT_CHANNELS[options.image_format]}); choose --format png"
        )
    found = LABELS[options.labels](source)
    plan = _plan(found.sources, options)
    with writing(folder):
        done: list[_Done] = []
        for result in run_jobs(partial(_write_one, folder, options), plan, jobs):
            done.append(result)
            if progress:
                progress(sum(len(job.sources) for job in plan[: len(done)]), len(found.sources))
        rejections = tuple(rejection for result in done for rejection in result.rejections)
        if rejections and not options.skip_bad:
            raise DataError(_rejected(rejections, len(found.sources)))
        index = commit(folder, _index(options, found.classes), [result.shard for result in done])
    return FolderReport(index, rejections, sum(result.enlarged for result in done), found.other_files)


def find_classes(source: Path) -> Found:
    """Return the images under `source`, labelled by the sub-folder they lie in.

    Raises:
        DataError: no such folder, no sub-folder, a sub-folder without an image, or images outside the sub-folders.
    """
    folders, loose = _entries(source, "a sub-folder of images for each class")
    num_loose = sum(_is_image(path) for path in loose)
    if not folders or num_loose:
        raise DataError(
            f"{source} holds {len(folders)} sub-folders and {num_loose} images beside them; put every image into "
            "the sub-folder of its class, or write images without labels with --labels none"
        )
    sources: list[Source] = []
    other_files: list[Path] = []
    for label, folder in enumerate(folders):
        files = _files(folder)
        images = [path for path in files if _is_image(path)]
        if not images:
            raise DataError(f"class {folder.name!r} in {source} has no image; fill or remove its folder")
        sources += [Source(path, label) for path in images]
        other_files += [path for path in files if not _is_image(path)]
    return Found(tuple(path.name for path in folders), sources, _by_suffix(other_files))


def find_unlabelled(source: Path) -> Found:
    """Return the images in `source` and in its sub-folders, without labels.

    Raises:
        DataError: no such folder, or no image in it.
    """
    folders, loose = _entries(source, "images")
    files = sorted(loose + [path for folder in folders for path in _files(folder)])
    sources = [Source(path, NO_LABEL) for path in files if _is_image(path)]
    if not sources:
        raise DataError(
            f"{source} and its {len(folders)} sub-folders hold no image, known by its suffix "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}), among {len(files)} files; name the folder of the images"
        )
    return Found((), sources, _by_suffix([path for path in files if not _is_image(path)]))


LABELS: dict[str, Callable[[Path], Found]] = {"folders": find_classes, "none": find_unlabelled}


def _entries(source: Path, content: str) -> tuple[list[Path], list[Path]]:
    """Return the folders and the files right in `source`, sorted, without hidden ones."""
    if not source.is_dir():
        raise DataError(f"{source} is no folder; name one that holds {content}")
    entries = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    return [path for path in entries if path.is_dir()], [path for path in entries if path.is_file()]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _by_suffix(files: list[Path]) -> dict[str, int]:
    return dict(Counter(path.suffix for path in files))


def _plan(sources: list[Source], options: FolderOptions) -> list[_Job]:
    order = permutation(len(sources), "folder", options.seed)
    sample_bytes = _mean_bytes([sources[at] for at in order[:PROBED_IMAGES]], options) + TAR_OVERHEAD_BYTES
    num_shards = math.ceil(len(sources) * sample_bytes / (options.shard_mb * MEGABYTE))
    jobs, first_key = [], 0
    for number, part in enumerate(np.array_split(order, min(num_shards, len(sources)))):
        jobs.append(_Job(number, first_key, tuple(sources[at] for at in part)))
        first_key += len(part)
    return jobs


def _mean_bytes(probes: list[Source], options: FolderOptions) -> float:
    sizes = []
    for probe in probes:
        try:
            sizes.append(len(_encode(probe, options)[0]))
        except ValueError:
            continue  # reported with its reason when its shard is written
    return float(np.mean(sizes)) if sizes else 0.0


def _encode(source: Source, options: FolderOptions) -> tuple[bytes, bool]:
    image = open_image(source.path, options.channels, options.max_pixels)
    enlarged = min(image.size) < options.side
    return encode(
        fit(image, options.side, options.fit, options.filter), options.image_format, options.quality
    ), enlarged


def _write_one(folder: Path, options: FolderOptions, job: _Job) -> _Done:
    rejections: list[Rejection] = []
    enlarged: list[Path] = []

    def samples() -> Iterator[Encoded]:
        for source in job.sources:
            try:
                data, was_enlarged = _encode(source, options)
            except ValueError as error:
                rejections.append(Rejection(source.path, str(error)))
                continue
            if was_enlarged:
                enlarged.append(source.path)
            yield Encoded(data, source.label)

    shard = write_shard(folder, job.number, job.first_key, options.image_format, samples())
    return _Done(shard, tuple(rejections), len(enlarged))


def _index(options: FolderOptions, classes: tuple[str, ...]) -> FolderIndex:
    how: dict[str, str | int] = {"fit": options.fit, "filter": options.filter}
    if options.image_format != "png":
        how["quality"] = options.quality
    return FolderIndex.model_validate(
        {
            "resolution": (options.side, options.side),
            "channels": options.channels,
            "image_format": options.image_format,
            "classes": classes,
            "resize": how,
            "seed": options.seed,
            "source": "folder of images",
            "shards": (),
        }
    )


def _rejected(rejections: tuple[Rejection, ...], num_sources: int) -> str:
    named = "; ".join(f"{rejection.path} {rejection.reason}" for rejection in rejections[:NAMED_REJECTIONS])
    more = f" (and {len(rejections) - NAMED_REJECTIONS} more)" if len(rejections) > NAMED_REJECTIONS else ""
    return (
        f"{len(rejections)} of {num_sources} files cannot be used: {named}{more}; "
        "mend or remove them, or leave them out with --skip-bad"
    )
