"""Images of any source as shards: in parallel, and with the same bytes for the same input.

What goes into which shard is fixed before any process starts: images permuted by the seed, and cut by count.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bigtrain.data.decode import DEFAULT_MAX_PIXELS
from bigtrain.data.index import FolderIndex
from bigtrain.data.pixels import DEFAULT_QUALITY, FORMAT_CHANNELS, encode, fit, read_image
from bigtrain.data.process import run_jobs
from bigtrain.data.shuffle import permutation
from bigtrain.data.sources.found import Found, Opener, Source
from bigtrain.data.writer import Encoded, WrittenShard, commit, write_shard, writing
from bigtrain.recipe.errors import DataError, UsageError

PROBED_IMAGES = 64  # encoded once more beforehand to learn the mean size
TAR_OVERHEAD_BYTES = 2048  # two headers, a label and padding
MEGABYTE = 1_000_000
NAMED_REJECTIONS = 5  # in the message


@dataclass(frozen=True)
class PackOptions:
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


@dataclass(frozen=True)
class Rejection:
    """A file that did not become a sample, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class PackReport:
    """What was written, what was enlarged or left out."""

    index: FolderIndex
    rejections: tuple[Rejection, ...]
    enlarged: int
    """Images that were smaller than the size asked for."""
    other_files: dict[str, int]
    """Files that are no images, by suffix."""
    notes: tuple[str, ...] = ()
    """Sentences about the source that the user should read."""


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


def refuse_format(options: PackOptions) -> None:
    """Check that the format holds the channels.

    Raises:
        UsageError: it does not.
    """
    if options.channels not in FORMAT_CHANNELS[options.image_format]:
        raise UsageError(
            f"--format {options.image_format} cannot hold {options.channels} channels (it holds "
            f"{FORMAT_CHANNELS[options.image_format]}); choose --format png"
        )


def pack(
    found: Found,
    folder: Path,
    options: PackOptions,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> PackReport:
    """Write images as shards into `folder`, replacing the shards there.

    Args:
        found: the images and their labels.
        folder: where the shards go.
        options: size, fit, format.
        jobs: processes; the result does not depend on it.
        progress: called with (images done, images in all).

    Raises:
        DataError: an image that cannot be used (unless `options.skip_bad`), or another writer.
        UsageError: the format cannot hold the channels.
    """
    refuse_format(options)
    plan = _plan(found, options)
    with writing(folder):
        done: list[_Done] = []
        for result in run_jobs(partial(_write_one, folder, options, found.open), plan, jobs):
            done.append(result)
            if progress:
                progress(sum(len(job.sources) for job in plan[: len(done)]), len(found.sources))
        rejections = tuple(rejection for result in done for rejection in result.rejections)
        if rejections and (not options.skip_bad or len(rejections) == len(found.sources)):
            raise DataError(_rejected(rejections, len(found.sources)))
        index = commit(folder, _index(options, found), [result.shard for result in done])
    return PackReport(index, rejections, sum(result.enlarged for result in done), found.other_files, found.notes)


def _plan(found: Found, options: PackOptions) -> list[_Job]:
    sources = found.sources
    order = permutation(len(sources), "folder", options.seed)
    sample_bytes = _mean_bytes([sources[at] for at in order[:PROBED_IMAGES]], found.open, options) + TAR_OVERHEAD_BYTES
    num_shards = math.ceil(len(sources) * sample_bytes / (options.shard_mb * MEGABYTE))
    jobs, first_key = [], 0
    for number, part in enumerate(np.array_split(order, min(num_shards, len(sources)))):
        jobs.append(_Job(number, first_key, tuple(sources[at] for at in part)))
        first_key += len(part)
    return jobs


def _mean_bytes(probes: list[Source], opener: Opener, options: PackOptions) -> float:
    sizes = []
    for probe in probes:
        try:
            sizes.append(len(_encode(probe, opener, options)[0]))
        except ValueError:
            continue  # reported with its reason when its shard is written
    return float(np.mean(sizes)) if sizes else 0.0


def _encode(source: Source, opener: Opener, options: PackOptions) -> tuple[bytes, bool]:
    image = read_image(opener(source), options.channels, options.max_pixels)
    enlarged = min(image.size) < options.side
    return encode(
        fit(image, options.side, options.fit, options.filter), options.image_format, options.quality
    ), enlarged


def _write_one(folder: Path, options: PackOptions, opener: Opener, job: _Job) -> _Done:
    rejections: list[Rejection] = []
    enlarged: list[Path] = []

    def samples() -> Iterator[Encoded]:
        for source in job.sources:
            try:
                data, was_enlarged = _encode(source, opener, options)
            except ValueError as error:
                rejections.append(Rejection(source.path, str(error)))
                continue
            if was_enlarged:
                enlarged.append(source.path)
            yield Encoded(data, source.label)

    shard = write_shard(folder, job.number, job.first_key, options.image_format, samples())
    return _Done(shard, tuple(rejections), len(enlarged))


def _index(options: PackOptions, found: Found) -> FolderIndex:
    how: dict[str, str | int] = {"fit": options.fit, "filter": options.filter}
    if options.image_format != "png":
        how["quality"] = options.quality
    return FolderIndex.model_validate(
        {
            "resolution": (options.side, options.side),
            "channels": options.channels,
            "image_format": options.image_format,
            "classes": found.classes,
            "resize": how,
            "seed": options.seed,
            "source": found.kind,
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
