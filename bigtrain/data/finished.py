"""Finished shards that still lie aside: a packing that was killed takes them up again instead of redoing them.

They are named after a hash of the plan, which covers all that their bytes depend on: the options, the version of
Pillow, and every source with its label, size and time of change. A note beside each, written once the shard is on disk,
says what it is; a shard without a fitting note is written again.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import PIL

from bigtrain.data.disk import ASIDE, write_aside
from bigtrain.data.sources.found import Source
from bigtrain.data.tar import sample_members
from bigtrain.data.writer import STEM_DIGITS, WrittenShard, file_sha256, make_rows
from bigtrain.recipe.errors import DataError


@dataclass(frozen=True)
class Note:
    """What became of the sources of one shard."""

    bytes: int
    sha256: str
    labels: tuple[int, ...]
    """Of the samples, in the order of the tar."""
    rejections: tuple[tuple[str, str], ...]
    """Path and reason of each source that did not become a sample."""
    digests: tuple[str, ...]
    """Of the content of each source; empty where it could not be read."""
    sizes: dict[str, int]
    """Sources of each size, as "640x480"."""
    enlarged: int


def plan_hash(facts: object, sources: Iterable[Source]) -> str:
    """Return a name for all that the bytes of the shards depend on."""
    digest = hashlib.sha256(f"{facts} Pillow {PIL.__version__}".encode())
    stamps: dict[str, str] = {}
    for source in sources:
        file = str(source.place[0]) if source.place else str(source.path)
        stamp = stamps.get(file) or _stamp(Path(file))
        if source.place:
            stamps[file] = stamp  # one file that holds many sources
        digest.update(f"{source}{stamp}\n".encode())
    return digest.hexdigest()[:STEM_DIGITS]


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "no file"
    return f"{found.st_size} {found.st_mtime_ns}"


def note_path(folder: Path, plan: str, number: int) -> Path:
    """Return where the note of a shard that lies aside is."""
    return folder / f"{ASIDE}{plan}-{number:06d}.json"


def shard_path(folder: Path, plan: str, number: int) -> Path:
    """Return where a shard lies aside."""
    return note_path(folder, plan, number).with_suffix(".tar")


def write_note(path: Path, note: Note) -> None:
    """Say in one step that a shard is finished."""
    with write_aside(path) as stream:
        content = json.dumps(asdict(note)).encode()
        stream.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def take_up(folder: Path, plan: str, number: int) -> tuple[WrittenShard, Note] | None:
    """Return a shard that an earlier packing by the same plan finished; None where there is none, or a damaged one."""
    path = shard_path(folder, plan, number)
    try:
        digest, _, content = note_path(folder, plan, number).read_bytes().partition(b"\n")
        if digest.decode() != hashlib.sha256(content).hexdigest():
            return None
        record = json.loads(content)
        note = Note(
            bytes=record["bytes"],
            sha256=record["sha256"],
            labels=tuple(record["labels"]),
            rejections=tuple((name, reason) for name, reason in record["rejections"]),
            digests=tuple(record["digests"]),
            sizes=record["sizes"],
            enlarged=record["enlarged"],
        )
        if path.stat().st_size != note.bytes or file_sha256(path) != note.sha256:
            return None
        rows = make_rows(list(sample_members(path)), note.labels)
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return None
    return WrittenShard(path, rows, note.bytes, note.sha256), note


def remove_other_plans(folder: Path, plan: str) -> None:
    """Delete what packings by other plans left aside."""
    for path in folder.glob(f"{ASIDE}*"):
        if not path.name.startswith(f"{ASIDE}{plan}-"):
            path.unlink(missing_ok=True)
