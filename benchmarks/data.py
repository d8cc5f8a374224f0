"""Images per second of the data feed against the plain webdataset pipeline, on the same shards.

Both end in uint8 NCHW batches of 64 and start afresh in every measurement, with 0, 1 and 2 workers. Rows "a core"
divide by the CPU time of all processes; without workers all work is in one. The images are crops of scikit-learn's two
sample photographs. The last rows open 1,000 shards of 1,000 samples and read a batch in the middle of epoch 7.
"""

import gc
import io
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.timing import Row, compare, cpu_s, main, time_s
from bigtrain.data.feed import Feed
from bigtrain.data.holdout import Holdout
from bigtrain.data.index import FolderIndex, ShardEntry
from bigtrain.data.order import WindowedOrder
from bigtrain.data.pixels import encode
from bigtrain.data.shards import ShardSet
from bigtrain.data.writer import Encoded, commit, write_shard, writing
from bigtrain.recipe.layout import Layout

BATCH_IMAGES = 64
SHUFFLE_SAMPLES = 1000  # of the reference, as its documentation shows
SHARDS, IMAGES_PER_SHARD = 4, 500
WINDOW_SHARDS = 8
WORKERS = (0, 1, 2)
MANY = 1000  # shards, and samples in each
LATE_EPOCH = 7
REPEATS = 7


@dataclass(frozen=True)
class Images:
    """What is stored, and how many batches a measurement reads: one to two seconds of work for the reference."""

    name: str
    image_format: str
    side: int
    num_batches: int
    encode: Callable[[Image.Image], bytes]


def _usual_jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)  # Pillow halves the colours' resolution unless told, as cameras do
    return stream.getvalue()


CASES = (
    Images("256 px jpg 4:2:0", "jpg", 256, 40, _usual_jpeg),
    Images("256 px jpg 4:4:4", "jpg", 256, 40, partial(encode, image_format="jpg")),  # as `bigtrain shards` writes
    Images("32 px png", "png", 32, 160, partial(encode, image_format="png")),
)


def measure() -> list[Row]:
    """Write the data sets into a temporary folder and compare the feeds on them."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for images in CASES:
            crops = Path(folder) / images.name
            write_crops(crops, images, [IMAGES_PER_SHARD] * SHARDS)
            rows += images_per_s(images.name, ShardSet.open(crops), images.num_batches)
        many = Path(folder) / "many"
        write_many(many)
        rows += [first_batch(many, workers) for workers in WORKERS]
    return [*rows, late_position()]


def images_per_s(name: str, shards: ShardSet, num_batches: int) -> list[Row]:
    """Compare images/s of both feeds, by the clock and by the CPU time of all processes."""
    rows = []
    for workers in WORKERS:
        actions = ours(shards, num_batches, workers), reference(shards, num_batches, workers)
        for clock, what in ((time_s, ""), (cpu_s, ", a core")) if workers else ((time_s, ", a core"),):
            row = compare(f"{name}, {workers} workers{what}", *actions, REPEATS, clock)
            num_images = num_batches * BATCH_IMAGES
            assert row["reference"] is not None
            rates = {"ours": num_images / row["ours"], "reference": num_images / row["reference"]}
            rows.append(Row({**row, **rates, "unit": "images/s"}))
    return rows


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
            .decode("torchrgb8")
            .to_tuple(shards.index.image_format, "cls")
            .batched(BATCH_IMAGES)
        )
        loader: Any = webdataset.WebLoader(pipeline, batch_size=None, num_workers=num_workers)
        batches = iter(loader)
        for _ in range(num_batches):
            image_NCHW, _label_N = next(batches)
            assert image_NCHW.dtype == torch.uint8
        del batches, loader
        gc.collect()  # its workers end here

    return read


def first_batch(folder: Path, num_workers: int) -> Row:
    """Time opening many shards, as a resumed run does, until its first batch is there."""

    def resume() -> None:
        shards = ShardSet.open(folder)
        order = shards.order(0, WINDOW_SHARDS)
        feed = Feed(shards, order, Layout(0, 1, BATCH_IMAGES, BATCH_IMAGES), num_workers)
        feed.read(LATE_EPOCH * order.num_samples + order.num_samples // 2)
        feed.close()

    name = f"first batch after a resume, {MANY:,} x {MANY:,}, {num_workers} workers"
    return Row(name=name, ours=_median_s(resume), reference=None, ratio=None, unit="s")


def late_position() -> Row:
    """Time the order alone, over as many shards of which a part is held out."""
    holdout = Holdout((MANY,) * MANY, 0.05, 0)

    def resume() -> None:
        order = WindowedOrder(holdout, "training", 0, WINDOW_SHARDS)
        order.samples(np.arange(BATCH_IMAGES) + LATE_EPOCH * order.num_samples + order.num_samples // 2)

    name = f"order alone after a resume, {MANY:,} x {MANY:,}"
    return Row(name=name, ours=_median_s(resume), reference=None, ratio=None, unit="s")


def _median_s(action: Callable[[], None]) -> float:
    action()
    return statistics.median(time_s(action) for _ in range(REPEATS))


def write_crops(folder: Path, images: Images, sizes: list[int]) -> FolderIndex:
    """Write random crops of two photographs as shards of two classes, as large as they are in them."""
    photographs = load_sample_images().images
    rng = np.random.default_rng(0)
    side, kind = images.side, images.image_format

    def crop() -> Encoded:
        label = int(rng.integers(len(photographs)))
        height, width = photographs[label].shape[:2]
        top, left = int(rng.integers(height - side)), int(rng.integers(width - side))
        pixels = photographs[label][top : top + side, left : left + side]
        return Encoded(images.encode(Image.fromarray(pixels)), label)

    index = FolderIndex.model_validate(
        {
            "resolution": (side, side),
            "channels": 3,
            "image_format": kind,
            "classes": ("china", "flower"),
            "resize": {},
            "seed": 0,
            "source": "crops of sklearn.datasets.load_sample_images",
            "shards": (),
        }
    )
    with writing(folder):
        written = [
            write_shard(folder, shard, shard * size, kind, (crop() for _ in range(size)))
            for shard, size in enumerate(sizes)
        ]
        return commit(folder, index, written)


def write_many(folder: Path) -> None:
    """Write an index of many shards, all of them one file under many names."""
    index = write_crops(folder, CASES[-1], [MANY])
    (entry,) = index.shards
    names = [f"many-{number:06d}.tar" for number in range(MANY)]
    entries = []
    for name in names:
        linked = ShardEntry.model_validate({**entry.model_dump(), "name": name})
        os.link(folder / entry.name, folder / name)
        os.link(folder / entry.index_name, folder / linked.index_name)
        entries.append(linked)
    index.model_copy(update={"shards": tuple(entries)}).write(folder)


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
