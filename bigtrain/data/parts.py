"""A data set packed in parts by several machines and joined, and a seeded split kept for validation."""

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from bigtrain.data.disk import ASIDE
from bigtrain.data.holdout import ROUNDING
from bigtrain.data.index import FolderIndex, read_rows
from bigtrain.data.shuffle import permutation
from bigtrain.data.sources.found import Found
from bigtrain.data.writer import WrittenShard, commit, writing
from bigtrain.recipe.errors import DataError, UsageError

VALIDATION = "val"  # folder of the validation split, in that of the training split
_PART = re.compile(r"part-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Part:
    """One of `count` parts, `number` 1..count, of the shards of a plan."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a part as it is typed, "3/16".

        Raises:
            UsageError: it is none.
        """
        first, slash, second = text.partition("/")
        if not (slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
            raise UsageError(f"--part is {text!r}, but must be like 3/16, from 1/16 to 16/16; correct it")
        return cls(int(first), int(second))

    @property
    def folder_name(self) -> str:
        """Where a part is written, in the folder of the data set."""
        return f"part-{self.number:04d}-of-{self.count:04d}"

    def of(self, plan: list[Any]) -> list[Any]:
        """Return this part of the shards to be written, a run of consecutive ones.

        Raises:
            UsageError: there are fewer shards than parts.
        """
        if self.count > len(plan):
            raise UsageError(
                f"--part {self.number}/{self.count} has nothing to do, since there are only {len(plan)} shards; use at "
                f"most {len(plan)} parts or a smaller --shard-mb"
            )
        chosen = np.array_split(np.arange(len(plan)), self.count)[self.number - 1]
        return [plan[at] for at in chosen]


def merge(folder: Path) -> FolderIndex:
    """Join the parts in `folder` into one data set there, equal to the byte to one that was never parted.

    Shards are linked, or copied where links are not possible; the parts stay.

    Raises:
        DataError: no parts, one is missing or damaged, they belong to different data sets, or another writer.
    """
    parts = _parts(folder)
    indexes = [FolderIndex.read(part) for part in parts]
    whole = indexes[0].model_copy(update={"shards": ()})
    for part, index in zip(parts, indexes, strict=True):
        if index.model_copy(update={"shards": ()}) != whole:
            raise DataError(f"{part} was packed with other options or images than {parts[0]}; pack the parts again")
    with writing(folder):
        written: list[WrittenShard] = []
        for part, index in zip(parts, indexes, strict=True):
            for entry in index.shards:
                aside = folder / f"{ASIDE}{len(written):06d}.tar"
                _link(part / entry.name, aside)
                if aside.stat().st_size != entry.bytes:
                    raise DataError(f"shard {part / entry.name} is not {entry.bytes} bytes long; pack {part} again")
                rows = np.array(read_rows(part, entry, index.pairing))
                written.append(WrittenShard(aside, rows, entry.bytes, entry.sha256))
        return commit(folder, whole, written)


def _parts(folder: Path) -> list[Path]:
    named = {path: match for path in sorted(folder.glob("part-*")) if (match := _PART.fullmatch(path.name))}
    if not named:
        raise DataError(f"{folder} holds no folder part-0001-of-...; write parts with --part 1/N and so on")
    counts = {int(match[2]) for match in named.values()}
    if len(counts) > 1:
        raise DataError(f"{folder} holds parts of {' and of '.join(map(str, sorted(counts)))}; delete one kind")
    missing = sorted(set(range(1, max(counts) + 1)) - {int(match[1]) for match in named.values()})
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of {max(counts)} parts, the first is {missing[0]}; write it with --part "
            f"{missing[0]}/{max(counts)}"
        )
    return list(named)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError as error:
        raise DataError(f"shard {source} is missing; pack its part again") from error
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def split(found: Found, share: float, seed: int) -> tuple[Found, Found]:
    """Return a training and a validation split; the second has floor(share * images), drawn by the seed.

    Raises:
        UsageError: one of the two would be empty.
    """
    total = len(found.sources)
    held = int(np.floor(total * share + ROUNDING))
    if not 0 < held < total:
        raise UsageError(f"--val {share:g} of {total} images leaves {held} for validation; choose another share")
    chosen = set(permutation(total, "validation", seed)[:held].tolist())
    train = [source for at, source in enumerate(found.sources) if at not in chosen]
    kept = [source for at, source in enumerate(found.sources) if at in chosen]
    says = f"{share:g} drawn by seed {seed}"
    return (
        replace(found, sources=train, kind=f"{found.kind}, without the validation split ({says})"),
        replace(found, sources=kept, kind=f"{found.kind}, validation split ({says})", other_files={}, notes=()),
    )
