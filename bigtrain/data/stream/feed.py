"""This rank's micro-batches from a stream: as `data/feed.py` gives them, but of samples that no position fixes.

Each worker has a stream of its own, which is opened anew whenever the feed does not simply go on: at a start, a resume
or a rollback. So what is read depends on where a run was stopped, and on the numbers of ranks and workers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch.utils.data import Dataset, get_worker_info

from bigtrain.data.batch import Batch
from bigtrain.data.feed import PARCEL_IMAGES, Feed, Parcel, Refusal
from bigtrain.data.stream.shards import OpenStream, Share, StreamSet
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.layout import Layout


@dataclass(frozen=True)
class _Request:
    """A parcel that is asked of a worker, and which opening of the stream it belongs to."""

    opening: int
    position: int
    images: int


class _Openings:
    """Endless sampler: requests for parcels, from an opening of the stream on; none crosses a global batch."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.position = 0
        self.opening = 0

    def __iter__(self) -> Iterator[_Request]:
        self.opening += 1
        layout, opening, position = self.layout, self.opening, self.position
        step = max(1, PARCEL_IMAGES // layout.micro_images)
        while True:
            for at in range(0, layout.accumulation, step):
                images = min(step, layout.accumulation - at) * layout.micro_images
                yield _Request(opening, position, images)


class _Taken(Dataset["Parcel | Refusal"]):
    """Parcels off the stream; what a worker runs."""

    def __init__(self, shards: StreamSet, layout: Layout) -> None:
        self.shards = shards
        self.layout = layout
        self._opening = 0
        self._stream: OpenStream | None = None

    def __getitem__(self, request: _Request) -> Parcel | Refusal:
        if self._stream is None or self._opening != request.opening:
            self._opening, self._stream = request.opening, self.shards.opened(request.position, self._share())
        try:
            batch = self._stream.load(request.images)
        except DataError as error:
            return Refusal(str(error))
        return Parcel.of(batch)

    def _share(self) -> Share:
        worker, layout = get_worker_info(), self.layout
        if worker is None:
            return Share(layout.rank, layout.world)
        return Share(layout.rank * worker.num_workers + worker.id, layout.world * worker.num_workers)


class StreamFeed(Feed):
    """Streams global batches; `read` at another position than the next one opens the stream anew."""

    def __init__(self, shards: StreamSet, layout: Layout, num_workers: int, pin_memory: bool = False) -> None:
        """Prepare to read, as `Feed` does.

        Args:
            shards: what is streamed.
            layout: which images of a global batch this rank computes.
            num_workers: processes that read and decode; 0 does it in the caller's.
            pin_memory: give batches in page-locked memory (for a GPU).
        """
        self.layout = layout
        self._prepare(_Taken(shards, layout), _Openings(layout), num_workers, pin_memory)


def some_images(shards: StreamSet, count: int, give_way: Callable[[], object]) -> Batch:
    """Return `count` samples as the first shards drawn have them, read beside the caller's process.

    Raises:
        DataError: as `OpenStream.load` does.
    """
    unmixed = replace(shards, settings=replace(shards.settings, shuffle_samples=1))
    feed = StreamFeed(unmixed, Layout(0, 1, count, count), num_workers=1)
    try:
        return feed.read(0, give_way)[0]
    finally:
        feed.close()
