"""Shards as an endless stream of samples: which shard comes next is drawn, with replacement, and samples are mixed in a
buffer. Nothing counts or numbers the data set, so there are no epochs, and no way back to a place in it.

Draws are those of WebDataset's `ResampledShards`: one sequence for a run, of which each worker of each rank reads its
own part. Departs from WebDataset in the split, whose functions take rank and worker from environment variables that a
batch script may have set for something else; in the buffer, which is bounded in bytes too; and in all that opens or
reads a shard (`data/stream/bytes.py`, `tars.py`), which runs no command and expands no variable.
"""

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self

import torch

from bigtrain.data.batch import BadSample, Batch
from bigtrain.data.decode import DEFAULT_MAX_PIXELS, Pixels, decode_into
from bigtrain.data.index import CLS_NUMBERS
from bigtrain.data.labels import JSON_PREFIX
from bigtrain.data.shuffle import stream_key
from bigtrain.data.staging.patience import Patience
from bigtrain.data.stream.bytes import ByteStream, blocks_of, inflated
from bigtrain.data.stream.places import StreamShard, find_shards
from bigtrain.data.stream.samples import Fault, Sample, SampleRules, ShardSamples
from bigtrain.data.stream.tars import stream_members
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec

NO_STAND_IN = -1  # the stream goes on with whatever comes next
ROW_BITS = 32  # of a sample's number, below those of its shard
BUFFER_BYTES = 256 << 20  # that a worker's samples may take while they wait, whatever their number
RECENT_IMAGES = 10_000  # that `data.max_bad_fraction` is a share of


@dataclass(frozen=True)
class Streaming:
    """How a stream is read."""

    seed: int
    label_key: str | None = None
    shuffle_samples: int = 1000
    max_pixels: int = DEFAULT_MAX_PIXELS
    on_error: Literal["stop", "skip"] = "stop"
    max_bad_fraction: float = 0.01


@dataclass(frozen=True)
class Share:
    """Which part of the draws a worker reads: number `number` and every `of`-th after it."""

    number: int
    of: int


@dataclass(frozen=True)
class StreamSet:
    """Shards without an index, and what their images are, which the recipe says."""

    where: str
    shards: tuple[StreamShard, ...]
    spec: ImageSpec
    settings: Streaming
    patience: Patience = field(default_factory=Patience)

    @classmethod
    def open(cls, place: str, spec: ImageSpec, settings: Streaming) -> Self:
        """Find the shards; none is read before training.

        Raises:
            DataError: see `find_shards`.
        """
        return cls(place, find_shards(place), spec, settings)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The numbers of the classes; nothing tells their names."""
        return tuple(map(str, range(self.spec.num_classes)))

    @property
    def content_hash(self) -> str:
        """Sha256 of the names of the shards, which is all that is known of what they hold."""
        names = "\n".join(sorted(shard.name for shard in self.shards))
        text = f"stream {self.settings.label_key} {names}"
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()  # file names are any bytes

    @property
    def signs_of_life(self) -> int:
        """A number that changes while shards are being read, in whichever process."""
        return self.patience.signs

    def give_way_to(self, give_way: Callable[[], object]) -> None:
        """Have reads of this process call `give_way`, and end with what it raises."""
        self.patience.give_way = give_way

    def place(self, number: int) -> str:
        """Return where a sample lies, for messages."""
        shard, row = number >> ROW_BITS, number % (1 << ROW_BITS)
        return f"shard {self.shards[shard].name}, image {row} of it"

    def opened(self, position: int, share: Share) -> "OpenStream":
        """Return one worker's stream as it begins at a position of the run."""
        return OpenStream(self, position, share)


class OpenStream:
    """One worker's samples; what is drawn depends on (seed, the position it was opened at, share) alone."""

    def __init__(self, shards: StreamSet, position: int, share: Share) -> None:
        self._set, settings = shards, shards.settings
        self._most_bad = settings.max_bad_fraction * RECENT_IMAGES
        place = CLS_NUMBERS if settings.label_key is None else JSON_PREFIX + settings.label_key
        self._rules = SampleRules(shards.spec, place)
        drawn = drawn_shards(len(shards.shards), settings.seed, position, share)
        key = stream_key("stream buffer", settings.seed, position, share.number)
        found = itertools.chain.from_iterable(self._samples(shard) for shard in drawn)
        self._mixed = mixed(found, settings.shuffle_samples, random.Random(key), settings.on_error == "skip")

    def load(self, count: int) -> Batch:
        """Return the next `count` samples that are whole, decoded, and what was bad on the way to them.

        Returns:
            uint8 images in channels_last memory.

        Raises:
            DataError: something is bad and is not passed over, or hardly anything is whole, or a shard cannot be had.
        """
        spec = self._set.spec
        image_NHWC = torch.empty(count, *spec.size, spec.channels, dtype=torch.uint8)
        label_N, sample_N = torch.empty(2, count, dtype=torch.int64)
        bad: list[BadSample] = []
        for place, out_HWC in enumerate(image_NHWC.numpy()):
            sample = self._next(out_HWC, bad)
            label_N[place], sample_N[place] = sample.label, _number(sample)
        return Batch(image_NHWC.permute(0, 3, 1, 2), label_N, sample_N, tuple(bad))

    def _next(self, out_HWC: Pixels, bad: list[BadSample]) -> Sample:
        while True:
            found = next(self._mixed)
            if isinstance(found, Sample):
                try:
                    decode_into(found.data, self._set.spec, out_HWC, self._set.settings.max_pixels)
                    return found
                except ValueError as error:
                    found = Fault(found.shard, found.row, found.key, f"the image {error}")
            bad.append(self._pass_over(found))
            if len(bad) > self._most_bad:
                raise DataError(
                    f"{len(bad)} of what a process read in a row was bad, the last: {self._sentence(found)}"
                )

    def _pass_over(self, fault: Fault) -> BadSample:
        if self._set.settings.on_error == "stop":
            raise DataError(f"{self._sentence(fault)}, or pass over it with data.on_error: skip")
        name = self._set.shards[fault.shard].name
        return BadSample(_number(fault), name, fault.key, 0, fault.reason, NO_STAND_IN)

    def _sentence(self, fault: Fault) -> str:
        shard = self._set.shards[fault.shard]
        sample = f", sample {fault.key!r}" if fault.key else ""
        return f"shard {shard.name}{sample} in {shard.source.where}: {fault.reason}; mend it at its source"

    def _samples(self, shard: int) -> Iterator[Sample | Fault]:
        one = self._set.shards[shard]
        stream = ByteStream(inflated(blocks_of(one.source, one.name, self._set.patience)))
        return iter(ShardSamples(shard, stream_members(stream, self._rules.most_bytes), self._rules))


def drawn_shards(num_shards: int, seed: int, position: int, share: Share) -> Iterator[int]:
    """Yield shards for ever, each draw independent of the others and uniform over all shards."""
    from webdataset.shardlists import ResampledShards  # takes a while, and most runs have an index

    key = stream_key("stream", seed, position)
    numbers = [str(shard) for shard in range(num_shards)]
    draws = ResampledShards(numbers, worker_seed=lambda: key, deterministic=True)
    return (int(draw["url"]) for draw in itertools.islice(draws, share.number, None, share.of))


def mixed(
    found: Iterator[Sample | Fault], most: int, rng: random.Random, hold_faults: bool = False
) -> Iterator[Sample | Fault]:
    """Yield samples from a buffer of `most` of them, each time any with equal chance.

    Args:
        found: samples and faults, endless.
        most: how many are held.
        rng: draws from the buffer.
        hold_faults: have faults wait in the buffer too, so that there are as many of them among what is given as in the
            data even while buffers fill; else they pass at once.
    """
    held: list[Sample | Fault] = []
    held_bytes = 0
    for each in found:
        if isinstance(each, Fault) and not hold_faults:
            yield each
            continue
        held.append(each)
        held_bytes += _bytes_of(each)
        while len(held) >= most or held_bytes > BUFFER_BYTES:
            at = rng.randrange(len(held))
            held[at], held[-1] = held[-1], held[at]
            one = held.pop()
            held_bytes -= _bytes_of(one)
            yield one


def _bytes_of(found: Sample | Fault) -> int:
    return len(found.data) if isinstance(found, Sample) else 0


def _number(found: Sample | Fault) -> int:
    return (found.shard << ROW_BITS) + found.row
