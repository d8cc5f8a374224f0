"""Shards, written so that a folder holds the old data set or the new one, never a mixture.

Shards are plain WebDataset tars (`000123.png` + `000123.cls`; of a pair `000123.a.png` + `000123.b.png`) made by
`webdataset.ShardWriter` with fixed times, so equal input gives equal bytes. They are written aside and named after the
sha256 of their content: new shards never overwrite different old ones, `index.json` is renamed into place last, and
only then do the old shards go.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import webdataset

from bigtrain.data.disk import ASIDE, only_writer, sync_folder
from bigtrain.data.index import NO_LABEL, FolderIndex, Pairing, Rows, ShardEntry, histogram, row_type, write_rows
from bigtrain.data.tar import Member, sample_members
from bigtrain.recipe.errors import DataError

KEY_DIGITS = 6
STEM_DIGITS = 12  # hex digits of the content's sha256 in the names of shards
READ_BYTES = 1 << 22


@dataclass(frozen=True)
class Encoded:
    """One sample ready to be stored; label -1 stores none."""

    data: bytes
    label: int
    data_b: bytes | None = None
    """The second image of a pair."""

    def record(self, key: int, extension: str) -> dict[str, Any]:
        """Return the sample as ShardWriter takes it."""
        record: dict[str, Any] = {"__key__": f"{key:0{KEY_DIGITS}d}"}
        if self.data_b is None:
            record[extension] = self.data
        else:
            record |= {f"a.{extension}": self.data, f"b.{extension}": self.data_b}
        if self.label != NO_LABEL:
            record["cls"] = str(self.label).encode()
        return record


@dataclass(frozen=True)
class WrittenShard:
    """A complete shard that is still aside: where it lies, its rows, size and sha256."""

    path: Path
    rows: Rows
    bytes: int
    sha256: str


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold `folder` for writing shards; at its end what is left aside goes, by a killed writer before it too.

    A user's interruption leaves it, as a kill does, for `bigtrain.data.finished`.

    Raises:
        DataError: another process writes there.
    """
    with only_writer(folder):
        try:
            yield
        except KeyboardInterrupt:
            raise  # finished shards stay aside and are taken up again
        except BaseException:
            _remove(folder.glob(ASIDE + "*"))
            raise
        _remove(folder.glob(ASIDE + "*"))


def write_shard(
    folder: Path, number: int, first_key: int, extension: str, samples: Iterable[Encoded], stem: str = ""
) -> WrittenShard:
    """Write one shard aside, fsynced, and index it from what lies on disk.

    Args:
        folder: where the data set will be.
        number: the shard's place in the data set.
        stem: begins the shard's name while it lies aside.
        first_key: number of its first sample, which names it.
        extension: "jpg", "png" or "webp".
        samples: what to store, in order.
    """
    path = folder / f"{ASIDE}{stem}{number:06d}.tar"
    labels: list[int] = []
    with path.open("wb") as stream:
        with webdataset.ShardWriter(
            "%06d.tar",
            opener=lambda _: _Borrowed(stream),
            maxcount=1 << 62,
            maxsize=1 << 62,
            verbose=0,
            mtime=0,
            encoder=False,
        ) as writer:
            for key, sample in enumerate(samples, start=first_key):
                writer.write(sample.record(key, extension))
                labels.append(sample.label)
        stream.flush()
        os.fsync(stream.fileno())
    rows = make_rows(list(sample_members(path)), labels)
    return WrittenShard(path, rows, path.stat().st_size, file_sha256(path))


def make_rows(samples: Sequence[tuple[Member, ...]], labels: Sequence[int]) -> Rows:
    """Return the index rows of a shard's samples, in the order of the tar; each has one image, or each has two."""
    key_bytes = max((len(sample[0].key.encode()) for sample in samples), default=1)
    pairing: Pairing = "members" if samples and len(samples[0]) > 1 else "none"
    rows = np.empty(len(samples), dtype=row_type(key_bytes, pairing))
    for row, ((member, *second), label) in enumerate(zip(samples, labels, strict=True)):
        places = [(each.offset, each.size, each.crc32) for each in second]
        rows[row] = (member.offset, member.size, member.crc32, label, member.key.encode(), *sum(places, ()))
    return rows


def commit(folder: Path, index: FolderIndex, written: Sequence[WrittenShard]) -> FolderIndex:
    """Bring written shards into force in one step and delete those they replace.

    Args:
        folder: where the shards lie aside.
        index: what the images are; its shards are ignored.
        written: all shards, in their order.

    Returns:
        The index as written.

    Raises:
        DataError: the new index contradicts itself (a label outside the classes).
    """
    stem = hashlib.sha256("".join(shard.sha256 for shard in written).encode()).hexdigest()[:STEM_DIGITS]
    names = [f"{stem}-{number:06d}.tar" for number in range(len(written))]
    index_names = [name.removesuffix(".tar") + ".index.npy" for name in names]
    entries = [
        ShardEntry(
            name=name,
            bytes=shard.bytes,
            sha256=shard.sha256,
            index_sha256=write_rows(folder / index_name, _rows(shard, index)),
            samples=len(shard.rows),
            class_histogram=histogram(shard.rows["label"]),
        )
        for name, index_name, shard in zip(names, index_names, written, strict=True)
    ]
    complete = index.model_copy(update={"shards": tuple(entries)})
    found = complete.problems()
    if found:
        raise DataError(
            f"the shards for {folder} are not put into force: {found[0]}; correct the labels and write them again"
        )
    for name, shard in zip(names, written, strict=True):
        shard.path.replace(folder / name)
    sync_folder(folder)
    complete.write(folder)
    remove_unlisted(folder, complete)
    return complete


def _rows(shard: WrittenShard, index: FolderIndex) -> Rows:
    """Return the rows of a shard; an empty one does not show by itself whether its samples would be pairs."""
    return shard.rows if len(shard.rows) else np.empty(0, dtype=row_type(1, index.pairing))


def remove_unlisted(folder: Path, index: FolderIndex) -> None:
    """Delete shards that bigtrain wrote here and no index lists any more; other files stay."""
    kept = {name for entry in index.shards for name in (entry.name, entry.index_name)}
    stem = f"{'[0-9a-f]' * STEM_DIGITS}-{'[0-9]' * KEY_DIGITS}"
    _remove(path for end in (".tar", ".index.npy") for path in folder.glob(stem + end) if path.name not in kept)


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file without reading it whole into memory."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in _blocks(stream):
            digest.update(block)
    return digest.hexdigest()


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(READ_BYTES):
        yield block


class _Borrowed:
    """A stream that ShardWriter may write to but not close: it is fsynced before it closes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        return self._stream.write(data)
