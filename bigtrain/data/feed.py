"""This rank's micro-batches of any global batch, through a DataLoader whose order is the closed-form one.

The sampler computes sample numbers in this process; workers only read and decode. So the position is the whole state:
a resume is a seek, and the number of workers and ranks cannot change what is read.
"""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bigtrain.data.batch import BadSample, Batch
from bigtrain.data.order import Order
from bigtrain.data.process import FollowParent
from bigtrain.data.shards import ShardSet
from bigtrain.data.shuffle import Integers
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.layout import Layout

PREFETCHED_PARCELS = 4  # per worker, that may wait decoded
PARCEL_IMAGES = 64  # small micro-batches travel together up to this many: a parcel costs a worker about 0.3 ms

BY_VALUE_BYTES = 1 << 17  # of pixels, up to which a parcel goes through the pipe: half the time at 64 KiB
NOWHERE = -1  # no position: the next read seeks
ASK_S = 0.25  # how often a wait for a worker asks whether to go on waiting
END_S = 1.0  # how long workers have to end by themselves; one that hangs in a file system never does


@dataclass(frozen=True)
class Refusal:
    """A sentence about a bad sample, carried from a worker as data: exceptions arrive wrapped in a traceback."""

    sentence: str


@dataclass(frozen=True)
class Parcel:
    """Micro-batches on their way out of a worker. A shared tensor is dear, since its memory is asked for over a socket:
    labels travel by value, and so do few pixels."""

    image: Tensor | npt.NDArray[np.uint8]
    """Shared pixels, NCHW in channels_last memory, or few ones by value, NHWC."""
    label_N: Integers
    sample_N: Integers
    bad: tuple[BadSample, ...] = ()
    image_b: Tensor | npt.NDArray[np.uint8] | None = None
    """Likewise, of images b."""
    label_b_N: Integers | None = None
    sample_b_N: Integers | None = None

    @classmethod
    def of(cls, batch: Batch) -> "Parcel":
        """Pack micro-batches."""
        image_b = None if batch.image_b_NCHW is None else _packed(batch.image_b_NCHW)
        more = (None if each_N is None else each_N.numpy() for each_N in (batch.label_b_N, batch.sample_b_N))
        return cls(_packed(batch.image_NCHW), batch.label_N.numpy(), batch.sample_N.numpy(), batch.bad, image_b, *more)

    def pin_memory(self) -> "Parcel":
        """Return the parcel with its pixels in page-locked memory (called by the DataLoader)."""
        image_b = None if self.image_b is None else _pixels(self.image_b).pin_memory()
        return replace(self, image=_pixels(self.image).pin_memory(), image_b=image_b)

    def unpacked(self, micro_images: int) -> tuple[Batch, ...]:
        """Return its micro-batches in order."""
        whole = Batch(
            _pixels(self.image),
            torch.from_numpy(self.label_N),
            torch.from_numpy(self.sample_N),
            image_b_NCHW=None if self.image_b is None else _pixels(self.image_b),
            label_b_N=None if self.label_b_N is None else torch.from_numpy(self.label_b_N),
            sample_b_N=None if self.sample_b_N is None else torch.from_numpy(self.sample_b_N),
        )
        batches = [whole.part(slice(at, at + micro_images)) for at in range(0, len(whole), micro_images)]
        return replace(batches[0], bad=self.bad), *batches[1:]


def _packed(image_NCHW: Tensor) -> Tensor | npt.NDArray[np.uint8]:
    is_small = image_NCHW.nbytes <= BY_VALUE_BYTES
    return image_NCHW.permute(0, 2, 3, 1).contiguous().numpy() if is_small else image_NCHW


def _pixels(packed: Tensor | npt.NDArray[np.uint8]) -> Tensor:
    """Return pixels, not copied."""
    return packed if isinstance(packed, Tensor) else torch.from_numpy(packed).permute(0, 3, 1, 2)


class _Samples(Dataset["Parcel | Refusal"]):
    """Parcels by their sample numbers; what a worker runs."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards

    def __getitem__(self, numbers: Integers) -> Parcel | Refusal:
        try:
            batch = self.shards.load(numbers)
        except DataError as error:
            return Refusal(str(error))
        return Parcel.of(batch)


class Positions(Protocol):
    """What is asked of the workers, in order, from a position on."""

    position: int

    def __iter__(self) -> Iterator[Any]:
        """Yield one request a parcel, endlessly."""
        ...


class _Positions:
    """Endless sampler: the sample numbers of this rank's parcels, from a position on; none crosses a global batch."""

    def __init__(self, order: Order, layout: Layout) -> None:
        self.order = order
        self.layout = layout
        self.position = 0

    def __iter__(self) -> Iterator[Integers]:
        position, layout = self.position, self.layout
        place_MN = np.array([layout.positions(micro_index) for micro_index in range(layout.accumulation)])
        step = max(1, PARCEL_IMAGES // layout.micro_images)
        while True:
            for at in range(0, layout.accumulation, step):
                yield self.order.samples(position + place_MN[at : at + step].reshape(-1))
            position += layout.batch_images


class Feed:
    """Streams global batches from any position; `wait_s` is the time its callers have waited for data."""

    def __init__(
        self, shards: ShardSet, order: Order, layout: Layout, num_workers: int, pin_memory: bool = False
    ) -> None:
        """Prepare to read; workers start at the first `read`, and end with the thread that called it.

        Args:
            shards: the part of the data set that `order` runs over.
            order: position -> sample.
            layout: which images of a global batch this rank computes.
            num_workers: processes that read and decode; 0 does it in the caller's.
            pin_memory: give batches in page-locked memory (for a GPU).
        """
        self.layout = layout
        self._prepare(_Samples(shards), _Positions(order, layout), num_workers, pin_memory)

    def _prepare(
        self, parcels: Dataset[Parcel | Refusal], positions: Positions, num_workers: int, pin_memory: bool
    ) -> None:
        self.wait_s = 0.0
        self._positions = positions
        self._next_position = NOWHERE
        self._stream: Iterator[Parcel | Refusal] | None = None
        self._loader: DataLoader[Parcel | Refusal] | None = DataLoader(
            parcels,
            batch_size=None,
            sampler=positions,
            num_workers=num_workers,
            prefetch_factor=PREFETCHED_PARCELS if num_workers else None,
            timeout=ASK_S if num_workers else 0,
            pin_memory=pin_memory,
            # Workers share the opened index and start in milliseconds; they never touch the accelerator.
            multiprocessing_context="fork" if num_workers else None,
            worker_init_fn=FollowParent(os.getpid()),
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # the loader draws a seed at every seek: not from the generator of training
        )

    def read(self, position: int, give_way: Callable[[], object] = lambda: None) -> tuple[Batch, ...]:
        """Return this rank's micro-batches of the global batch whose first image is at `position` of the order.

        The position after the last one streams on; any other one seeks, dropping what was read ahead.

        Args:
            position: of the batch's first image.
            give_way: called again and again while a worker is waited for, and before each parcel where there is none;
                the wait ends with what it raises.

        Raises:
            DataError: a sample of the batch is bad; names shard, key and reason.
        """
        started_s = time.monotonic()
        stream = self._stream if self._stream is not None and position == self._next_position else self._seek(position)
        self._next_position = NOWHERE  # whoever goes on after an error seeks
        batches: tuple[Batch, ...] = ()
        while len(batches) < self.layout.accumulation:
            batches += self._take(stream, give_way)
        self._next_position = position + self.layout.batch_images
        self.wait_s += time.monotonic() - started_s
        return batches

    def close(self) -> None:
        """Stop the workers; the feed cannot be read afterwards."""
        self._end_workers()
        self._loader = None

    def _end_workers(self) -> None:
        stream, self._stream = self._stream, None
        # Dropping the last reference does the same, but the traceback of an error may hold one.
        stop = getattr(stream, "_shutdown_workers", None)
        if stop is None:
            return
        killer = threading.Timer(END_S, _kill, (getattr(stream, "_workers", ()),))
        killer.start()
        try:
            stop()
        except RuntimeError as error:  # torch's handler, of a worker that was killed here
            if not _tells_of_a_dead_worker(error):
                raise
        finally:
            killer.cancel()

    def _seek(self, position: int) -> Iterator[Parcel | Refusal]:
        assert self._loader is not None, "the feed was closed"
        is_first = self._stream is None
        self._end_workers()  # new ones start in milliseconds
        self._positions.position = position
        self._stream = iter(self._loader)
        if is_first:
            # Registered after the workers' own exit hooks, so it runs before them: they would wait for workers that
            # nobody has told to end.
            atexit.register(_close_if_alive, weakref.ref(self))
        return self._stream

    def _take(self, stream: Iterator[Parcel | Refusal], give_way: Callable[[], object]) -> tuple[Batch, ...]:
        found: Parcel | Refusal | None = None
        while found is None:
            give_way()
            try:
                found = next(stream)
            except (RuntimeError, OSError, EOFError) as error:
                if not _tells_of_a_dead_worker(error):
                    if _tells_of_a_long_wait(error, stream):
                        continue
                    raise
                reason = " ".join(str(error).split()) or type(error).__name__
                raise DataError(
                    f"a process that reads data ended ({reason}); if memory ran out, lower data.num_workers, then "
                    "resume"
                ) from error
        if isinstance(found, Refusal):
            raise DataError(found.sentence)
        return found.unpacked(self.layout.micro_images)


def _kill(workers: Sequence[Any]) -> None:
    for worker in workers:
        worker.kill()


def _tells_of_a_long_wait(error: Exception, stream: Iterator[Parcel | Refusal]) -> bool:
    """Tell whether nothing came within `ASK_S`, and still may: the loader then says nothing of a thread that died."""
    pinning = getattr(stream, "_pin_memory_thread", None)
    return str(error).startswith("DataLoader timed out") and (pinning is None or pinning.is_alive())


def _tells_of_a_dead_worker(error: Exception) -> bool:
    """Tell a worker that is gone from an error in our code: the DataLoader says so, or its pipes to it are broken."""
    return str(error).startswith("DataLoader worker") or isinstance(error, (ConnectionError, EOFError))


def _close_if_alive(reference: "weakref.ref[Feed]") -> None:
    feed = reference()
    if feed is not None:
        feed.close()


def _as_it_is(item: Any) -> Any:
    return item
