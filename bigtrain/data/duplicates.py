"""Sources whose content an earlier one has."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image

from bigtrain.data.process import run_jobs
from bigtrain.data.sources.found import Found, Opener, Source

DIGEST_BYTES = 16
DIGESTED_TOGETHER = 64  # images handed to a process at once


@dataclass(frozen=True)
class Duplicate:
    """An image and the first one of the same content."""

    path: Path
    first: Path
    same_label: bool


def find_duplicates(pairs: Iterable[tuple[Source, str]]) -> tuple[Duplicate, ...]:
    """Return every source whose digest an earlier one has; an empty digest equals none."""
    first: dict[str, Source] = {}
    found = []
    for source, digest in pairs:
        earlier = first.setdefault(digest, source)
        if digest and earlier is not source:
            found.append(Duplicate(source.path, earlier.path, earlier.label == source.label))
    return tuple(found)


def without_duplicates(found: Found, jobs: int) -> tuple[Found, tuple[Duplicate, ...]]:
    """Read every source once and return the first of each content, and the others."""
    digests = list(run_jobs(partial(_digest_of, found.open), found.sources, jobs, chunk=DIGESTED_TOGETHER))
    dropped = find_duplicates(zip(found.sources, digests, strict=True))
    gone = {duplicate.path for duplicate in dropped}
    return replace(found, sources=[source for source in found.sources if source.path not in gone]), dropped


def _digest_of(opener: Opener, source: Source) -> str:
    try:
        return digest_of([opener(image) for image in source.images])
    except (ValueError, OSError):
        return ""  # reported with its reason when its shard is written


def digest_of(contents: Sequence[bytes | Image.Image]) -> str:
    """Return a digest of the content of a source: of one image, or of both of a pair."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for content in contents:
        data = content if isinstance(content, bytes) else f"{content.mode} {content.size} ".encode() + content.tobytes()
        if len(contents) > 1:
            digest.update(f"{len(data)} ".encode())  # where one ends and the other begins
        digest.update(data)
    return digest.hexdigest()
