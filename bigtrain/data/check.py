"""Everything that can be known about a folder of shards without training on it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bigtrain.data.decode import DEFAULT_MAX_PIXELS, decode_into, refuse
from bigtrain.data.header import read_header
from bigtrain.data.index import NO_LABEL, FolderIndex, Pairing, Rows, ShardEntry, histogram, read_rows
from bigtrain.data.labels import NoLabelError, label_extension, read_label
from bigtrain.data.mixing import SORTED_BELOW, label_mixing
from bigtrain.data.pairs import SIDES
from bigtrain.data.process import run_jobs
from bigtrain.data.tar import IMAGE_EXTENSIONS, Member, members
from bigtrain.data.writer import file_sha256
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec


@dataclass(frozen=True)
class ShardReport:
    """One shard and a sentence for each of its faults."""

    name: str
    samples: int
    bytes: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """A checked folder: the index where it could be read, its shards, how well classes are mixed, and all faults."""

    index: FolderIndex | None
    shards: tuple[ShardReport, ...]
    mixing: float
    faults: tuple[str, ...]

    @property
    def is_sorted(self) -> bool:
        """Training would refuse the shards because they are sorted by class."""
        return self.mixing < SORTED_BELOW


def check_folder(
    folder: Path,
    window_shards: int,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    decode: bool = True,
) -> Report:
    """Verify sizes, checksums, labels and every image of a folder of shards.

    Args:
        folder: where `index.json` is.
        window_shards: `data.shuffle_window_shards` of the training to come; decides what counts as sorted by class.
        max_pixels: images that claim more are faults.
        jobs: processes.
        progress: called with (shards done, shards in all).
        decode: whether images are decoded; otherwise their headers are read, and their bytes compared with the index.
    """
    try:
        index = FolderIndex.read(folder)
    except DataError as error:
        return Report(None, (), 1.0, (str(error),))
    found: list[ShardReport] = []
    law = _Law(index.stored_spec, index.pairing, index.classes, index.labels, max_pixels, decode)
    for report in run_jobs(partial(_check_shard, folder, law), index.shards, jobs):
        found.append(report)
        if progress:
            progress(len(found), len(index.shards))
    faults = tuple(fault for report in found for fault in report.faults)
    return Report(index, tuple(found), label_mixing(index, window_shards), faults)


@dataclass(frozen=True)
class _Law:
    """What every sample has to be, as the index says."""

    image: ImageSpec
    pairing: Pairing
    classes: tuple[str, ...]
    place: str
    max_pixels: int
    decode: bool

    @property
    def sides(self) -> tuple[str, ...]:
        """Which images a sample has."""
        return SIDES if self.pairing == "members" else ("",)


def _check_shard(folder: Path, law: _Law, entry: ShardEntry) -> ShardReport:
    faults = tuple(f"shard {entry.name}: {fault}" for fault in _shard_faults(folder, law, entry))
    return ShardReport(entry.name, entry.samples, entry.bytes, faults)


def _shard_faults(folder: Path, law: _Law, entry: ShardEntry) -> Iterator[str]:
    path = folder / entry.name
    if not path.is_file():
        yield f"is missing in {folder}"
        return
    found_bytes = path.stat().st_size
    if found_bytes != entry.bytes:
        yield f"has {found_bytes} bytes where index.json says {entry.bytes} (cut short?)"
    elif file_sha256(path) != entry.sha256:
        yield "its sha256 is not the one in index.json"
    try:
        rows = read_rows(folder, entry, law.pairing)
    except DataError as error:
        yield str(error)
        return
    if histogram(rows["label"]) != entry.class_histogram:
        yield "its rows have another class histogram than index.json"
    yield from _member_faults(path, rows, law)


def _member_faults(path: Path, rows: Rows, law: _Law) -> Iterator[str]:
    places = {row["key"].decode(): place for place, row in enumerate(rows)}
    images: set[tuple[str, str]] = set()
    labels: dict[str, bytes] = {}
    wanted = label_extension(law.place)
    try:
        for member in members(path):
            key, side, extension = _named(member, places, law)
            if extension == wanted:
                labels[key] = member.data
            elif extension in IMAGE_EXTENSIONS:
                if (key, side) in images:
                    yield f"sample {key!r} has two images" + (f" .{side}." if side else "")
                images.add((key, side))
                row = rows[places[key]] if key in places and side in law.sides else None
                yield from _image_faults(f"{key}.{side}" if side else key, member, _place(row, side), law)
    except DataError as error:
        yield str(error)
    missing = [key for key in places if any((key, side) not in images for side in law.sides)]
    if missing:
        yield f"{len(missing)} of {len(rows)} samples of the index are not in the tar, the first is {missing[0]!r}"
    for key, place in places.items():
        if (key, law.sides[0]) in images:
            yield from _label_faults(key, labels.get(key), int(rows[place]["label"]), law)


def _named(member: Member, places: Mapping[str, int], law: _Law) -> tuple[str, str, str]:
    """Return the key of the sample that a member belongs to, which image of a pair it is, and its extension."""
    stem, extension = member.last_split
    key, _, side = stem.rpartition(".")
    if law.pairing == "members" and extension in IMAGE_EXTENSIONS and side in SIDES:
        return key, side, extension
    return (stem, "", extension) if stem in places else (member.key, "", member.extension)


def _place(row: np.void | None, side: str) -> tuple[int, int, int] | None:
    """Return offset, size and crc32 of an image as its index says."""
    if row is None:
        return None
    second = "_b" if side == "b" else ""
    return int(row[f"offset{second}"]), int(row[f"size{second}"]), int(row[f"crc32{second}"])


def _image_faults(key: str, member: Member, place: tuple[int, int, int] | None, law: _Law) -> Iterator[str]:
    image = law.image
    where = f"sample {key!r} (offset {member.offset})"
    if place is None:
        yield f"{where} is not in its index"
        return
    offset, size, crc32 = place
    if (member.offset, member.size) != (offset, size):
        yield f"{where} lies elsewhere than its index says ({offset})"
    if member.crc32 != crc32:
        yield f"{where} is damaged: crc32 {member.crc32:08x} where the index says {crc32:08x}"
    try:
        if not law.decode:
            refuse(read_header(member.data), image, law.max_pixels)
            return
        decode_into(member.data, image, np.empty((*image.size, image.channels), dtype=np.uint8), law.max_pixels)
    except ValueError as error:
        yield f"{where}: the image {error}"


def _label_faults(key: str, stored: bytes | None, indexed: int, law: _Law) -> Iterator[str]:
    num_classes = law.image.num_classes
    if num_classes == 0:
        if indexed != NO_LABEL:
            yield f"sample {key!r} has label {indexed}, but the data set has no classes"
        return
    if not NO_LABEL <= indexed < num_classes:
        yield f"sample {key!r} has label {indexed}, but labels run from 0 to {num_classes - 1}"
    extension = label_extension(law.place)
    try:
        found = None if stored is None else read_label(stored, law.place)
    except NoLabelError:
        found = None
    except ValueError as error:
        yield f"sample {key!r}: the label in its .{extension} {error}"
        return
    named = law.classes[indexed] if 0 <= indexed < num_classes else None
    if found is None and indexed == NO_LABEL:
        return
    if found is None or (found != indexed and str(found) != named):
        yield f"sample {key!r} has label {found!r} in its .{extension} and {indexed} in its index"
