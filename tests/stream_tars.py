"""Tars for tests of streams: numbered images with labels, as bytes, and what is read of them."""

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bigtrain.data.pixels import encode
from bigtrain.data.stream.bytes import ByteStream, inflated
from bigtrain.data.stream.samples import Fault, Sample, SampleRules, ShardSamples
from bigtrain.data.stream.shards import Streaming, StreamSet
from bigtrain.data.stream.tars import stream_members
from bigtrain.recipe.image import ImageSpec
from tests.shard_factory import label_of, numbered_image

NUM_CLASSES = 3
SPEC = ImageSpec(4, 1, NUM_CLASSES)
RULES = SampleRules(SPEC, "cls")
File = tuple[str | tarfile.TarInfo, bytes]


def picture(number: int, side: int = 4) -> bytes:
    """A PNG that tells its number."""
    return encode(numbered_image(number, side), "png")


def sample(number: int, name: str | None = None) -> list[File]:
    """An image and its label."""
    name = name or f"{number:04d}"
    return [(f"{name}.png", picture(number)), (f"{name}.cls", str(label_of(number, NUM_CLASSES)).encode())]


def samples(numbers: Sequence[int]) -> list[File]:
    """Images and their labels."""
    return [file for number in numbers for file in sample(number)]


def tar_of(files: Sequence[File], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar as bytes; a TarInfo stands for itself."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, data in files:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def headers_of(data: bytes) -> dict[str, int]:
    """Where the header of each member lies."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {entry.name: entry.offset for entry in archive}


def read_all(data: bytes, rules: SampleRules = RULES, block_bytes: int = 1 << 20) -> list[Sample | Fault]:
    """What one shard of these bytes holds."""
    blocks = (data[at : at + block_bytes] for at in range(0, len(data), block_bytes))
    return list(ShardSamples(0, stream_members(ByteStream(inflated(blocks)), rules.most_bytes), rules))


def split(found: Sequence[Sample | Fault]) -> tuple[list[tuple[bytes, int]], list[str]]:
    """Images with their labels, and reasons of faults with their keys."""
    whole = [(each.data, each.label) for each in found if isinstance(each, Sample)]
    return whole, [f"{each.key}: {each.reason}" for each in found if isinstance(each, Fault)]


def expected(numbers: Sequence[int]) -> list[tuple[bytes, int]]:
    """What `split` says of whole samples."""
    return [(picture(number), label_of(number, NUM_CLASSES)) for number in numbers]


def write_shards(folder: Path, sizes: Sequence[int]) -> Iterator[range]:
    """Write numbered shards; yield the numbers of each."""
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for shard, size in enumerate(sizes):
        (folder / f"{shard:06d}.tar").write_bytes(tar_of(samples(range(first, first + size))))
        yield range(first, first + size)
        first += size


def opened(place: Any, spec: ImageSpec = SPEC, **how: Any) -> StreamSet:
    """A stream of shards, unmixed unless it is told."""
    return StreamSet.open(str(place), spec, Streaming(**{"seed": 5, "shuffle_samples": 1, **how}))
