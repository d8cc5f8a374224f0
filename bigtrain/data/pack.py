"""Images of any source as shards: in parallel, and with the same bytes for the same input.

What goes into which shard is fixed before any process starts: images permuted by the seed, and cut by count.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from bigtrain.data.decode import DEFAULT_MAX_PIXELS
from bigtrain.data.duplicates import Duplicate, digest_of, find_duplicates, without_duplicates
from bigtrain.data.finished import Note, note_path, plan_hash, remove_other_plans, take_up, write_note
from bigtrain.data.index import FolderIndex, Pairing
from bigtrain.data.pairs import IMAGES_EACH
from bigtrain.data.parts import Part
from bigtrain.data.pixels import (
    DEFAULT_QUALITY,
    FORMAT_CHANNELS,
    FORMAT_PIXELS,
    Size,
    encode,
    fit,
    halves,
    is_enlarged,
    read_image,
    refuse_proportions,
)
from bigtrain.data.process import run_jobs
from bigtrain.data.shuffle import permutation
from bigtrain.data.sources.found import Found, Opener, Source
from bigtrain.data.writer import Encoded, WrittenShard, commit, write_shard, writing
from bigtrain.recipe.errors import DataError, UsageError

PROBED_IMAGES = 64  # encoded once more beforehand to learn the mean size
TAR_OVERHEAD_BYTES = 2048  # two headers, a label and padding
MEGABYTE = 1_000_000
NAMED_REJECTIONS = 5  # in the message
_END = Source(Path(), 0, ("end of a shard",))  # cuts are part of a plan


@dataclass(frozen=True)
class PackOptions:
    """How images become samples; recorded in the index."""

    side: int
    """Height in pixels."""
    fit: str = "crop"
    filter: str = "lanczos"
    image_format: str = "jpg"
    quality: int = DEFAULT_QUALITY
    channels: int = 3
    shard_mb: float = 256
    seed: int = 0
    skip_bad: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    duplicates: str = "keep"
    """Whether images of equal content are all kept, or dropped but for the first; either way they are reported."""
    part: Part | None = None
    """Which shards of the whole are written; None: all."""
    width: int | None = None
    """In pixels; None: square."""

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.side, self.side if self.width is None else self.width


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
    """Images that were smaller than the size asked for, so that pixels were made up."""
    other_files: dict[str, int]
    """Files that are no images, by suffix."""
    notes: tuple[str, ...] = ()
    """Sentences about the source that the user should read."""
    duplicates: tuple[Duplicate, ...] = ()
    """Images whose content an earlier one has."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Sources of each size, as "640x480"."""
    taken_up: int = 0
    """Shards that an earlier packing, which was killed, had finished."""


@dataclass(frozen=True)
class _Job:
    number: int
    first_key: int
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class _Done:
    shard: WrittenShard
    note: Note
    taken_up: bool


def refuse_format(options: PackOptions) -> None:
    """Check that the format holds the channels and the size.

    Raises:
        UsageError: it does not.
    """
    most = FORMAT_PIXELS.get(options.image_format)
    if most is not None and max(options.size) > most:
        raise UsageError(
            f"--format {options.image_format} cannot hold {max(options.size)} pixels a side (at most {most}); choose "
            "--format png"
        )
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
    dropped: tuple[Duplicate, ...] = ()
    if options.duplicates == "drop":
        found, dropped = without_duplicates(found, jobs)
    plan = _plan(found, options)
    plan = options.part.of(plan) if options.part else plan
    num_sources = sum(len(job.sources) for job in plan)
    facts = replace(options, skip_bad=False, duplicates="keep"), found.classes, found.kind, found.pairing
    name = plan_hash(facts, (image for job in plan for source in (*job.sources, _END) for image in source.images))
    with writing(folder):
        remove_other_plans(folder, name)
        done: list[_Done] = []
        for result in run_jobs(partial(_write_one, folder, options, replace(found, sources=[]), name), plan, jobs):
            done.append(result)
            if progress:
                progress(sum(len(job.sources) for job in plan[: len(done)]), num_sources)
        rejections = tuple(Rejection(Path(path), reason) for one in done for path, reason in one.note.rejections)
        if rejections and (not options.skip_bad or len(rejections) == num_sources):
            raise DataError(_rejected(rejections, num_sources))
        index = commit(folder, _index(options, found), [result.shard for result in done])
    sizes: Counter[str] = Counter()
    for one in done:
        sizes.update(one.note.sizes)
    return PackReport(
        index,
        rejections,
        sum(one.note.enlarged for one in done),
        found.other_files,
        found.notes,
        dropped or _duplicates(plan, done),
        dict(sizes),
        sum(one.taken_up for one in done),
    )


def _duplicates(plan: list[_Job], done: list[_Done]) -> tuple[Duplicate, ...]:
    pairs = [
        (source, digest)
        for job, one in zip(plan, done, strict=True)
        for source, digest in zip(job.sources, one.note.digests, strict=True)
    ]
    return find_duplicates(sorted(pairs, key=lambda pair: str(pair[0].path)))


def _plan(found: Found, options: PackOptions) -> list[_Job]:
    sources = found.sources
    order = permutation(len(sources), "folder", options.seed)
    overhead_bytes = TAR_OVERHEAD_BYTES * IMAGES_EACH[found.pairing]
    sample_bytes = _mean_bytes([sources[at] for at in order[:PROBED_IMAGES]], found, options) + overhead_bytes
    num_shards = math.ceil(len(sources) * sample_bytes / (options.shard_mb * MEGABYTE))
    jobs, first_key = [], 0
    for number, part in enumerate(np.array_split(order, min(num_shards, len(sources)))):
        jobs.append(_Job(number, first_key, tuple(sources[at] for at in part)))
        first_key += len(part)
    return jobs


def _mean_bytes(probes: list[Source], found: Found, options: PackOptions) -> float:
    sizes = []
    for probe in probes:
        try:
            sizes.append(_take(probe, found.open, found.pairing, options).bytes)
        except _RejectedError:
            continue  # reported with its reason when its shard is written
    return float(np.mean(sizes)) if sizes else 0.0


class _RejectedError(Exception):
    """A file cannot become a sample, or a part of one: its path and why."""


@dataclass(frozen=True)
class _Taken:
    """A source as a sample: its one or two images as they are stored."""

    stored: tuple[bytes, ...]
    sizes: tuple[Size, ...]
    """Height and width of each before it was fitted."""
    digest: str

    @property
    def bytes(self) -> int:
        return sum(map(len, self.stored))


def _take(source: Source, opener: Opener, pairing: Pairing, options: PackOptions) -> _Taken:
    contents, sizes, stored = [], [], []
    for one in source.images:
        try:
            contents.append(opener(one))
            image = read_image(contents[-1], options.channels, options.max_pixels)
            for part in halves(image) if pairing == "halves" else (image,):
                sizes.append((part.height, part.width))
                fitted = fit(part, options.size, options.fit, options.filter)
                stored.append(encode(fitted, options.image_format, options.quality))
            refuse_proportions(sizes[0], sizes[-1], options.fit)
        except (ValueError, OSError) as error:
            raise _RejectedError(str(one.path), str(error)) from error
    return _Taken(tuple(stored), tuple(sizes), digest_of(contents))


def _write_one(folder: Path, options: PackOptions, found: Found, plan: str, job: _Job) -> _Done:
    earlier = take_up(folder, plan, job.number)
    if earlier is not None:
        return _Done(*earlier, taken_up=True)
    rejections: list[tuple[str, str]] = []
    labels: list[int] = []
    digests: list[str] = []
    sizes: Counter[Size] = Counter()

    def samples() -> Iterator[Encoded]:
        for source in job.sources:
            digests.append("")
            try:
                taken = _take(source, found.open, found.pairing, options)
            except _RejectedError as error:
                rejections.append(error.args)
                continue
            digests[-1] = taken.digest
            sizes.update(taken.sizes)
            labels.append(source.label)
            first, *second = taken.stored
            yield Encoded(first, source.label, *second)

    shard = write_shard(folder, job.number, job.first_key, options.image_format, samples(), f"{plan}-")
    note = Note(
        bytes=shard.bytes,
        sha256=shard.sha256,
        labels=tuple(labels),
        rejections=tuple(rejections),
        digests=tuple(digests),
        sizes={f"{width}x{height}": number for (height, width), number in sizes.items()},
        enlarged=sum(number for size, number in sizes.items() if is_enlarged(size, options.size, options.fit)),
    )
    write_note(note_path(folder, plan, job.number), note)
    return _Done(shard, note, taken_up=False)


def _index(options: PackOptions, found: Found) -> FolderIndex:
    how: dict[str, str | int] = {"fit": options.fit, "filter": options.filter}
    if options.image_format != "png":
        how["quality"] = options.quality
    return FolderIndex.model_validate(
        {
            "resolution": options.size,
            "channels": options.channels,
            "image_format": options.image_format,
            "classes": found.classes,
            "resize": how,
            "seed": options.seed,
            "source": found.kind,
            "shards": (),
            "pairing": "none" if found.pairing == "none" else "members",
        }
    )


def _rejected(rejections: tuple[Rejection, ...], num_sources: int) -> str:
    named = "; ".join(f"{rejection.path} {rejection.reason}" for rejection in rejections[:NAMED_REJECTIONS])
    more = f" (and {len(rejections) - NAMED_REJECTIONS} more)" if len(rejections) > NAMED_REJECTIONS else ""
    return (
        f"{len(rejections)} of {num_sources} files cannot be used: {named}{more}; "
        "mend or remove them, or leave them out with --skip-bad"
    )
