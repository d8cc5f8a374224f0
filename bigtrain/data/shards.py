"""Shards as a data set: what its images are, any sample by its number, training and held-out parts.

Axes: N images, C channels, H height, W width, K classes.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from bigtrain.data.balance import NO_BALANCE, Balance
from bigtrain.data.batch import Batch
from bigtrain.data.decode import DEFAULT_MAX_PIXELS, Pixels
from bigtrain.data.holdout import Holdout, Part
from bigtrain.data.index import NO_LABEL, FolderIndex, add_histograms, histogram
from bigtrain.data.occurrences import Occurrences
from bigtrain.data.order import Balanced, Order, WindowedOrder
from bigtrain.data.pairs import IMAGES_EACH, decode_sample
from bigtrain.data.places import Staging, open_places
from bigtrain.data.reader import OPEN_SHARDS, BadSampleError, Sample, ShardReader
from bigtrain.data.shuffle import Integers
from bigtrain.data.staging.files import StagedFiles
from bigtrain.data.staging.prefetch import StagedOrder
from bigtrain.data.standin import StandIns, bad_sample
from bigtrain.data.unpaired import SideBySide, second_seed
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec, SampleKind


@dataclass(frozen=True)
class ShardSet:
    """One part of a data set. A sample's number counts through all shards in their stored order, whatever the part."""

    index: FolderIndex
    parts: Holdout
    part: Part
    reader: ShardReader
    max_pixels: int = DEFAULT_MAX_PIXELS
    on_error: Literal["stop", "skip"] = "stop"
    """What `load` does with a damaged sample: raise, or put a good one in its place, see `StandIns`."""
    second: "ShardSet | None" = None
    """The set b of two that are trained on together unpaired. Orders and `load` know it; all else is of set a alone."""

    @classmethod
    def open(
        cls,
        place: str | Path,
        holdout: float = 0.0,
        seed: int = 0,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        staging: Staging | None = None,
    ) -> Self:
        """Open indexed shards and return their training part.

        Args:
            place: a folder with `index.json`; as text also a brace pattern or URLs.
            holdout: share of the samples, 0..1, to keep out of training.
            seed: decides which samples are held out.
            max_pixels: images that claim more are refused before decoding.
            staging: where shards are copied to ahead of need; None: they are read where they lie.

        Raises:
            DataError: no or a damaged index, a shard missing or not of its size, nothing left to train on.
        """
        index, files = open_places(place, staging)
        parts = Holdout(tuple(entry.samples for entry in index.shards), holdout, seed)
        shards = cls(index, parts, "training", ShardReader(files, index), max_pixels)
        if not shards.num_samples:
            raise DataError(
                f"data.holdout {holdout:g} keeps all {index.num_samples} samples of {shards.where} out of training; "
                "lower it"
            )
        return shards

    @property
    def where(self) -> str:
        """The place that was opened, for messages."""
        return self.reader.files.where

    @property
    def spec(self) -> ImageSpec:
        """What every image is."""
        return self.index.spec

    @property
    def images_each(self) -> int:
        """Images of a sample: 2 where samples are pairs."""
        return IMAGES_EACH[self.index.pairing]

    @property
    def sample_kind(self) -> SampleKind:
        """What a sample is."""
        if self.second is not None:
            return "unpaired"
        return "image" if self.images_each == 1 else "pair"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label; empty without classes."""
        return self.index.classes

    @property
    def signs_of_life(self) -> int:
        """A number that changes while shards are being copied, in whichever process; 0 where none are."""
        files = self.reader.files
        own = files.patience.signs if isinstance(files, StagedFiles) else 0
        return own if self.second is None else own + self.second.signs_of_life

    def give_way_to(self, give_way: Callable[[], object]) -> None:
        """Have waits of this process for shards call `give_way`, and end with what it raises."""
        files = self.reader.files
        if isinstance(files, StagedFiles):
            files.patience.give_way = give_way
        if self.second is not None:
            self.second.give_way_to(give_way)

    @cached_property
    def num_samples(self) -> int:
        """Samples of this part."""
        return int(self.parts.part_sizes(self.part).sum())

    @cached_property
    def content_hash(self) -> str:
        """Sha256 of what this part holds (of both sets, where there are two); equal for equal content, wherever it
        lies."""
        if self.second is not None:
            first = replace(self, second=None).content_hash
            return hashlib.sha256(f"{first} unpaired {self.second.content_hash}".encode()).hexdigest()
        content = self.index.content_sha256()
        if self.part == "all" or (self.part == "training" and not self.parts.counts.any()):
            return content
        return hashlib.sha256(f"{content} {self.part} {self.parts.share!r} {self.parts.seed}".encode()).hexdigest()

    @cached_property
    def histograms(self) -> tuple[dict[int, int], ...]:
        """How many samples of each shard belong to this part, by label; with a holdout, the rows of all shards are
        opened for it once."""
        if self.part == "all" or (self.part == "training" and not self.parts.counts.any()):
            return tuple(entry.class_histogram for entry in self.index.shards)
        shards = range(len(self.index.shards))
        return tuple(histogram(self._labels(shard)[self.parts.rows(shard, self.part)]) for shard in shards)

    @property
    def label_counts(self) -> Integers:
        """Labelled samples of each class in this part, int64 [K]; shape [0] without classes."""
        return self.label_places(NO_BALANCE)

    @property
    def num_unlabelled(self) -> int:
        """Samples of this part without a label beside labelled ones; 0 where there are no classes."""
        return sum(counts.get(NO_LABEL, 0) for counts in self.histograms) if self.class_names else 0

    def label_places(self, balance: Balance) -> Integers:
        """Return how often each class comes in an epoch of a training order, int64 [K]."""
        counted = add_histograms(self.histograms)
        found = {label: count for label, count in counted.items() if count}
        label_K, size_K = np.array(list(found), dtype=np.int64), np.array(list(found.values()), dtype=np.int64)
        places = dict(zip(found, balance.places(label_K, size_K).tolist(), strict=True))
        return np.array([places.get(label, 0) for label in range(len(self.class_names))], dtype=np.int64)

    def _labels(self, shard: int) -> Integers:
        return np.asarray(self.reader.rows(shard)["label"], dtype=np.int64)

    def training(self) -> Self:
        """Return the part that is trained on."""
        return self._with_part("training")

    def holdout(self) -> Self:
        """Return the part kept out of training; it may be empty."""
        return self._with_part("held_out")

    def whole(self) -> Self:
        """Return all samples."""
        return self._with_part("all")

    def _with_part(self, part: Part) -> Self:
        return replace(self, part=part, second=None if self.second is None else self.second._with_part(part))

    def numbers(self) -> Integers:
        """Return the numbers of this part's samples in stored order, int64 [num_samples]."""
        starts, shards = self.reader.starts, range(len(self.index.shards))
        return np.concatenate([starts[shard] + self.parts.rows(shard, self.part) for shard in shards])

    def order(self, seed: int, window_shards: int, balance: Balance = NO_BALANCE) -> Order:
        """Return the training order over this part; reading along it has shards copied ahead, where they are copied.

        Args:
            seed: decides every permutation.
            window_shards: shards among which samples are permuted.
            balance: how often each class comes; other than `none`, the rows of a window's shards are opened with it.

        Raises:
            DataError: see `Balance.places`.
        """
        deal = None
        if balance != NO_BALANCE:
            occurrences = Occurrences(self.histograms, balance, seed)
            deal = Balanced(self.parts, self.part, occurrences, self._labels)
        windowed, files = WindowedOrder(self.parts, self.part, seed, window_shards, deal), self.reader.files
        order: Order = windowed
        if isinstance(files, StagedFiles):
            self.reader.most_open = min(OPEN_SHARDS, 2 * window_shards)  # a batch may lie in two windows
            order = StagedOrder(windowed, files)
        if self.second is None:
            return order
        return SideBySide(order, self.second.order(second_seed(seed), window_shards, balance))

    def read(self, number: int) -> tuple[bytes, int]:
        """Return the stored image of a sample, checked by its crc32, and its label.

        Raises:
            DataError: no such sample, or damaged.
        """
        sample = self._sample(number)
        return sample.data, sample.label

    def place(self, number: int) -> str:
        """Return where a sample lies, for messages: shard, key and offset."""
        return self.reader.read(number).place

    def load(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> Batch:
        """Read and decode samples by their numbers.

        Args:
            numbers: of samples [N]; or [N, 2], of set a and of set b.

        Returns:
            uint8 images in channels_last memory.

        Raises:
            DataError: a shard is missing, or a label is not what the index says, or a sample is damaged and is not
                replaced, see `on_error`; names shard, key and reason.
        """
        sample_N = np.array(numbers, dtype=np.int64)
        if sample_N.ndim > 1:
            assert self.second is not None, "numbers of two sets, and there is one"
            return self.load(sample_N[:, 0]).beside(self.second.load(sample_N[:, 1]))
        image, count, bad = self.spec, len(sample_N), []
        # Of pairs, the second images: tensors of their own, since each travels by itself.
        images = [torch.empty(count, *image.size, image.channels, dtype=torch.uint8) for _ in range(self.images_each)]
        label_N, pixels = np.empty(count, dtype=np.int64), [image_NHWC.numpy() for image_NHWC in images]
        for place, number in enumerate(sample_N.tolist()):
            try:
                label_N[place] = self._decode(number, [pixels_NHWC[place] for pixels_NHWC in pixels])
            except BadSampleError as error:
                if self.on_error == "stop":
                    raise
                into = [pixels_NHWC[place] for pixels_NHWC in pixels]
                sample_N[place], label_N[place] = self._stand_in(number, into, error)
                bad.append(bad_sample(number, int(sample_N[place]), error))
        image_NCHW, *second = (image_NHWC.permute(0, 3, 1, 2) for image_NHWC in images)
        return Batch(image_NCHW, torch.from_numpy(label_N), torch.from_numpy(sample_N), tuple(bad), *second)

    @cached_property
    def _stand_ins(self) -> StandIns:
        return StandIns(self.reader, self.parts, self.part)

    def _decode(self, number: int, images: Sequence[Pixels]) -> int:
        """Decode a sample into its place, or its two images into theirs, and return its label."""
        sample = self._sample(number)
        try:
            decode_sample(sample, self.index, images, self.max_pixels)
        except ValueError as error:
            way_out = "remove it at its source and write the shards again"
            raise BadSampleError(sample, self.where, f": the image {error}", way_out) from error
        return sample.label

    def _stand_in(self, number: int, images: Sequence[Pixels], error: BadSampleError) -> tuple[int, int]:
        """Decode the first good stand-in of a damaged sample; return its number and label."""
        for candidate in self._stand_ins.of(number):
            try:
                return candidate, self._decode(candidate, images)
            except BadSampleError:
                continue
        raise DataError(f"{error}, since none of its shard that could stand in for it is whole") from error

    @cached_property
    def _may_lack_labels(self) -> bool:
        return not self.class_names or self.index.num_unlabelled > 0

    def _sample(self, number: int) -> Sample:
        sample = self.reader.read(number)
        num_classes = self.spec.num_classes
        if not (0 <= sample.label < num_classes or (sample.label == NO_LABEL and self._may_lack_labels)):
            raise DataError(
                f"{sample.place} in {self.where} has label {sample.label}, but there are {num_classes} classes; "
                "write the shards again"
            )
        return sample
