"""Images per second of the data feed against the plain webdataset pipeline, on the same shards.

Both end in uint8 NCHW batches of 64 and start afresh in every measurement. With 0 workers all work is in one process,
so the figure is images/s per core; with 2 workers it is what two processes deliver. The JPEGs are crops of
scikit-learn's two sample photographs.
"""

import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.timing import Row, compare, main, time_s
from bigtrain.data.digits import write_digits
from bigtrain.data.feed import Feed
from bigtrain.data.holdout import Holdout
from bigtrain.data.index import FolderIndex
from bigtrain.data.order import WindowedOrder
from bigtrain.data.pixels import encode
from bigtrain.data.shards import ShardSet
from bigtrain.data.writer import Encoded, commit, write_shard, writing
from bigtrain.recipe.layout import Layout

BATCH_IMAGES = 64
NUM_BATCHES = {"png": 160, "jpg": 60}  # one to two seconds of work for the reference
SHUFFLE_SAMPLES = 1000  # of the reference, as its documentation shows
PHOTO_SIDE = 128
PHOTO_SHARDS, PHOTOS_PER_SHARD = 4, 400
REFERENCE_DECODERS = {1: "torchl8", 3: "torchrgb8"}
WINDOW_SHARDS = 8
WORKERS = (0, 2)


def measure() -> list[Row]:
    """Write both data sets into a temporary folder and compare the feeds on them."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        digits, photos = Path(folder) / "digits", Path(folder) / "photos"
        write_digits(digits)
        write_photos(photos)
        rows = [images_per_s("digits, 32 px png", digits, workers) for workers in WORKERS]
        rows += [images_per_s("photographs, 128 px jpg q95", photos, workers) for workers in WORKERS]
    return [*rows, late_position()]


def images_per_s(name: str, folder: Path, num_workers: int) -> Row:
    """Compare images/s of both feeds over the shards in `folder`."""
    shards = ShardSet.open(folder)
    num_batches = NUM_BATCHES[shards.index.image_format]
    row = compare(
        f"{name}, {num_workers} workers",
        ours(shards, num_batches, num_workers),
        reference(shards, num_batches, num_workers),
    )
    num_images = num_batches * BATCH_IMAGES
    assert row["reference"] is not None
    return Row(
        name=row["name"],
        ours=num_images / row["ours"],
        reference=num_images / row["reference"],
        ratio=row["ratio"],
        unit="images/s",
    )


def ours(shards: ShardSet, num_batches: int, num_workers: int) -> Callable[[], None]:
    """Return an action that reads batches through this project's feed."""

    def read() -> None:
        layout = Layout(0, 1, BATCH_IMAGES, BATCH_IMAGES)
        feed = Feed(shards, shards.order(0, WINDOW_SHARDS), layout, num_workers)
        for number in range(num_batches):
            (batch,) = feed.read(number * BATCH_IMAGES)
            assert batch.image_NCHW.dtype == torch.uint8
        feed.close()

    return read


def reference(shards: ShardSet, num_batches: int, num_workers: int) -> Callable[[], None]:
    """Return an action that reads batches through webdataset's own pipeline."""
    urls = [f"{shards.where}/{entry.name}" for entry in shards.index.shards]

    def read() -> None:
        pipeline = (
            webdataset.WebDataset(urls, shardshuffle=len(urls))
            .repeat()
            .shuffle(SHUFFLE_SAMPLES)
            .decode(REFERENCE_DECODERS[shards.spec.channels])
            .to_tuple(shards.index.image_format, "cls")
            .batched(BATCH_IMAGES)
        )
        loader: Iterable[tuple[torch.Tensor, torch.Tensor]] = webdataset.WebLoader(
            pipeline, batch_size=None, num_workers=num_workers
        )
        for _, (image_NCHW, _label_N) in zip(range(num_batches), loader, strict=False):
            assert image_NCHW.dtype == torch.uint8

    return read


def late_position() -> Row:
    """Time the order of the first batch after a resume in the middle of epoch 7 of a million samples."""
    holdout = Holdout((1000,) * 1000, 0.05, 0)

    def resume() -> None:
        order = WindowedOrder(holdout, "training", 0, WINDOW_SHARDS)
        order.samples(np.arange(BATCH_IMAGES) + 7 * order.num_samples + order.num_samples // 2)

    seconds = sorted(time_s(resume) for _ in range(7))
    name = "order after a resume, 1,000 shards x 1,000 samples"
    return Row(name=name, ours=seconds[3], reference=None, ratio=None, unit="s")


def write_photos(folder: Path) -> None:
    """Write random crops of two photographs as JPEG shards of two classes."""
    photographs = load_sample_images().images
    rng = np.random.default_rng(0)

    def crop() -> Encoded:
        label = int(rng.integers(len(photographs)))
        height, width = photographs[label].shape[:2]
        top, left = int(rng.integers(height - PHOTO_SIDE)), int(rng.integers(width - PHOTO_SIDE))
        pixels = photographs[label][top : top + PHOTO_SIDE, left : left + PHOTO_SIDE]
        return Encoded(encode(Image.fromarray(pixels), "jpg"), label)

    index = FolderIndex(
        resolution=(PHOTO_SIDE, PHOTO_SIDE),
        channels=3,
        image_format="jpg",
        classes=("china", "flower"),
        resize={},
        seed=0,
        source="crops of sklearn.datasets.load_sample_images",
        shards=(),
    )
    with writing(folder):
        written = [
            write_shard(folder, shard, shard * PHOTOS_PER_SHARD, "jpg", (crop() for _ in range(PHOTOS_PER_SHARD)))
            for shard in range(PHOTO_SHARDS)
        ]
        commit(folder, index, written)


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
