"""The index beside the shards: `index.json` for the folder, `<shard>.index.npy` for each shard.

`index.json` is small and read whole; it names every shard with its size, sha256, samples and class histogram, and
carries a sha256 of itself, so that a shortened or edited index is noticed. `<shard>.index.npy` holds one row a sample
(where its image lies in the tar, its crc32, label and key) and is memory-mapped, so that a sample is one `pread`.

Departs from the WebDataset convention, which has no index: any WebDataset reader simply ignores these files.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from bigtrain.data.disk import write_aside
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec

INDEX_NAME = "index.json"
INDEX_VERSION = 1
CLS_NUMBERS = "cls"  # labels are numbers in `.cls` members, as bigtrain writes them
NO_LABEL = -1  # label of a sample that has none

Pairing = Literal["none", "members", "halves"]
"""What a sample is in the tars: one image; a pair of images, `KEY.a.png` and `KEY.b.png`; a pair, the left and the
right half of one image."""

Rows = npt.NDArray[np.void]
"""Structured rows of a shard's index, see `row_type`."""

_FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.tar$")]
_Side = Annotated[int, Field(ge=1)]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


_SECOND = [("offset_b", "<i8"), ("size_b", "<i8"), ("crc32_b", "<u4")]


def row_type(key_bytes: int, pairing: Pairing = "none") -> np.dtype[np.void]:
    """Return the type of one row for keys of at most `key_bytes` UTF-8 bytes; integers are little-endian on disk.

    The rows of pairs by members end with the place and crc32 of the second image.
    """
    fields = [("offset", "<i8"), ("size", "<i8"), ("crc32", "<u4"), ("label", "<i4"), ("key", f"S{max(key_bytes, 1)}")]
    return np.dtype(fields + (_SECOND if pairing == "members" else []))


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShardEntry(_Frozen):
    """What `index.json` says about one shard."""

    name: _FileName
    bytes: int = Field(ge=0)
    sha256: _Sha256
    index_sha256: _Sha256
    samples: int = Field(ge=0)
    class_histogram: dict[int, int]

    @property
    def index_name(self) -> str:
        """File name of the shard's rows."""
        return self.name.removesuffix(".tar") + ".index.npy"


class FolderIndex(_Frozen):
    """The content of `index.json`: what all images are, how they were made, and the shards in their order."""

    format: Literal["bigtrain-shards"] = "bigtrain-shards"
    version: Literal[1] = 1
    resolution: tuple[_Side, _Side]
    """Height and width in pixels, of every image; where pairs are stored as halves, of a half."""
    channels: Literal[1, 3, 4]
    image_format: Literal["jpg", "png", "webp"]
    classes: tuple[str, ...]
    """Name of each label 0..n-1; empty for images without labels."""
    resize: dict[str, str | int]
    """How the images got their size: filter, fit, quality."""
    seed: int
    """Seed of the writer's permutation."""
    source: str
    """Where the images come from, with their licence where known."""
    shards: tuple[ShardEntry, ...]
    labels: str = CLS_NUMBERS
    """Where the tars keep labels, see `bigtrain.data.labels`; left out of the file where it is this default."""
    pairing: Pairing = "none"
    """What a sample is; left out of the file where it is this default."""

    @property
    def spec(self) -> ImageSpec:
        """The images as networks and metrics know them."""
        return ImageSpec.of_size(self.resolution, self.channels, len(self.classes))

    @property
    def stored_spec(self) -> ImageSpec:
        """The images as they lie in the tars."""
        height, width = self.resolution
        size = (height, 2 * width) if self.pairing == "halves" else (height, width)
        return ImageSpec.of_size(size, self.channels, len(self.classes))

    @property
    def num_samples(self) -> int:
        """Samples in all shards."""
        return sum(entry.samples for entry in self.shards)

    @property
    def num_unlabelled(self) -> int:
        """Samples without a label beside labelled ones; 0 where there are no classes."""
        return sum(entry.class_histogram.get(NO_LABEL, 0) for entry in self.shards) if self.classes else 0

    def _record(self) -> dict[str, Any]:
        record = self.model_dump(mode="json")
        if self.labels == CLS_NUMBERS:
            del record["labels"]  # an index written before there was a choice stays what it was, to its sha256
        if self.pairing == "none":
            del record["pairing"]  # likewise
        return record

    def content_sha256(self) -> str:
        """Sha256 over everything this index says, the shards' own sha256 included: two data sets are
        equal when these are."""
        text = json.dumps(self._record(), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def problems(self) -> list[str]:
        """Return a sentence for each way in which the entries contradict one another."""
        found = []
        names = [entry.name for entry in self.shards]
        found += [f"shard {name} is listed twice" for name in sorted({name for name in names if names.count(name) > 1})]
        if not self.num_samples:
            found.append("no shard holds a sample")
        for entry in self.shards:
            found += self._entry_problems(entry)
        return found

    def _entry_problems(self, entry: ShardEntry) -> list[str]:
        known = {NO_LABEL, *range(len(self.classes))}
        found = []
        outside = sorted(set(entry.class_histogram) - known)
        if outside:
            law = f"labels run from 0 to {len(self.classes) - 1}" if self.classes else "the data set has no classes"
            found.append(f"shard {entry.name} holds label {outside[0]}, but {law}")
        if sum(entry.class_histogram.values()) != entry.samples:
            found.append(
                f"class histogram of shard {entry.name} sums to {sum(entry.class_histogram.values())}, not "
                f"{entry.samples}"
            )
        return found

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and verify `folder/index.json`.

        Raises:
            DataError: it is missing, not JSON, of another version, edited, or contradicts itself.
        """
        path = folder / INDEX_NAME
        return cls.parse(_read(path), str(path))

    @classmethod
    def parse(cls, data: bytes, path: str) -> Self:
        """Verify the bytes of an `index.json`; `path` names them in messages.

        Raises:
            DataError: not JSON, of another version, edited, or contradicts itself.
        """
        record = _load_record(data, path)
        if record.get("version") != INDEX_VERSION:
            raise DataError(
                f"{path} has version {record.get('version')!r}, but this program reads {INDEX_VERSION}; write the "
                "shards again with `bigtrain shards folder`"
            )
        promised = record.pop("content_sha256", None)
        try:
            index = cls.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                f"{path} is no index of shards: {'.'.join(map(str, first['loc']))}: {first['msg']}; write the shards "
                "again with `bigtrain shards folder`"
            ) from error
        if index.content_sha256() != promised:
            raise DataError(
                f"{path} is not what was written (content_sha256 {promised!r} does not fit its content); restore it "
                "or write the shards again"
            )
        found = index.problems()
        if found:
            raise DataError(
                f"{path}: {found[0]}"
                + (f" (and {len(found) - 1} more)" if found[1:] else "")
                + "; write the shards again with `bigtrain shards folder`"
            )
        return index

    def write(self, folder: Path) -> None:
        """Replace `folder/index.json` in one step: this is the moment at which new shards come into force."""
        record = {**self._record(), "content_sha256": self.content_sha256()}
        with write_aside(folder / INDEX_NAME) as stream:
            stream.write((json.dumps(record, indent=1) + "\n").encode())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        found = f"holds {len(list(path.parent.glob('*.tar')))} tar files" if path.parent.is_dir() else "does not exist"
        raise DataError(
            f"no {INDEX_NAME} in {path.parent}, which {found}; shards made by `bigtrain shards folder` carry one, so "
            "make them with that or name their folder"
        ) from error


def _load_record(data: bytes, path: str) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not JSON (cut short?): {error}; write the shards again with `bigtrain shards folder`"
        ) from error
    if not isinstance(record, dict):
        raise DataError(
            f"{path} holds a {type(record).__name__}, not an index; write the shards again with `bigtrain shards "
            "folder`"
        )
    return record


def write_rows(path: Path, rows: Rows) -> str:
    """Write a shard's rows aside and rename them into place; return their sha256."""
    with write_aside(path) as stream:
        np.lib.format.write_array(stream, rows, version=(1, 0), allow_pickle=False)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_rows(folder: Path, entry: ShardEntry, pairing: Pairing = "none") -> Rows:
    """Map a shard's rows into memory, after checking that they are the ones that were written.

    Args:
        folder: of the shard.
        entry: of the shard.
        pairing: what `index.json` says samples are.

    Returns:
        rows, shape [samples], read-only.

    Raises:
        DataError: missing, damaged, or of another shape than `index.json` says.
    """
    return map_rows(folder / entry.index_name, entry, pairing)


def map_rows(path: Path, entry: ShardEntry, pairing: Pairing = "none") -> Rows:
    """Map the file that holds a shard's rows into memory, as `read_rows` does, whatever its name.

    Raises:
        DataError: missing, damaged, or of another shape than `index.json` says.
    """
    way_out = "restore it or write the shards again with `bigtrain shards folder`"
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        reason = error.strerror
        raise DataError(f"{path.name} of shard {entry.name} in {path.parent}: {reason}; {way_out}") from error
    if digest != entry.index_sha256:
        raise DataError(
            f"{path} is damaged: sha256 {digest[:12]} where index.json says {entry.index_sha256[:12]}; {way_out}"
        )
    try:
        rows: Rows = np.lib.format.open_memmap(path, mode="r")  # unpickles nothing
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} holds no rows ({' '.join(str(error).split())}); {way_out}") from error
    is_sound = rows.dtype.names == row_type(1, pairing).names and rows.dtype == row_type(
        rows.dtype["key"].itemsize, pairing
    )
    if rows.shape != (entry.samples,) or not is_sound:
        raise DataError(f"{path} holds {rows.shape} rows of {rows.dtype}, not {entry.samples} samples; {way_out}")
    for second in ("", "_b") if pairing == "members" else ("",):
        offset_N, size_N = rows[f"offset{second}"], rows[f"size{second}"]
        outside = (offset_N < 0) | (size_N < 0) | (size_N > entry.bytes) | (offset_N > entry.bytes - size_N)
        if outside.any():
            raise DataError(f"{path} places sample {int(outside.argmax())} outside of shard {entry.name}; {way_out}")
    return rows


def histogram(labels: npt.NDArray[np.integer[Any]]) -> dict[int, int]:
    """Count the samples of each label, in the order of labels."""
    values, counts = np.unique(labels, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def add_histograms(parts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Sum class histograms, in the order of labels."""
    total: dict[int, int] = {}
    for part in parts:
        for label, count in part.items():
            total[label] = total.get(label, 0) + count
    return dict(sorted(total.items()))
