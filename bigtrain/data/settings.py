"""The `data` section of a recipe."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from bigtrain.data.balance import NO_BALANCE, BalanceText
from bigtrain.data.decode import DEFAULT_MAX_PIXELS
from bigtrain.data.location import locations
from bigtrain.data.mixing import refuse_sorted
from bigtrain.data.places import Staging
from bigtrain.data.shards import ShardSet
from bigtrain.data.staging.files import check_room
from bigtrain.data.stream.shards import Streaming, StreamSet
from bigtrain.data.unpaired import second_seed
from bigtrain.recipe.errors import DataError, RecipeError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.settings import PositiveCount, Settings, Share

INDEXED_KEYS = {
    "shards_b": "two sets are read side by side in the orders that their indexes make possible",
    "cache_dir": "streamed shards are read where they lie, since nothing says what a copy would have to be",
    "cache_gib": "streamed shards are not copied",
    "holdout": "which samples are held out is said by an index, and streamed shards have none",
    "shuffle_window_shards": "streamed shards are drawn one by one, and mixed by data.shuffle_samples",
    "balance": "how many samples each class has is said by an index, and streamed shards have none",
    "allow_sorted": "nobody knows beforehand how the samples of streamed shards are sorted",
}
STREAM_KEYS = {
    "label_key": "the index says where labels are",
    "shuffle_samples": "the index gives an order, whose mixing is data.shuffle_window_shards",
}

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class DataSettings(Settings):
    """Which images are trained on, and how they are read."""

    shards: str
    """Indexed shards, as `bigtrain shards` writes them: a folder, a brace pattern of folders or of shards in them, or
    http(s)://, s3:// and gs:// URLs of those. Streamed ones need no index, may be gzipped, and are named one by one in
    URLs."""
    shards_b: str | None = None
    """For games that take two unpaired sets of images: the second one, as `shards` names the first. Both may have any
    number of samples; each comes once in each epoch of its own. Images and classes must be like those of `shards`."""
    mode: Literal["indexed", "stream"] = "indexed"
    """How shards are read: by their index, every sample once an epoch in an order that a resume goes on in; or, where
    they cannot be indexed, as WebDataset does, drawn again and again and read from end to end: nothing is counted, and
    a resume goes on with other samples."""
    label_key: str | None = None
    """Streamed shards only: the key of the label, a number, in the `.json` beside each image (dots step into objects);
    None: it is in the `.cls`. Nothing is read of labels where `image.num_classes` is 0."""
    shuffle_samples: PositiveCount = 1000
    """Streamed shards only: encoded images that each worker holds and draws from, or fewer where they take more than
    256 MiB. They are read before its first batch."""
    cache_dir: str | None = None
    """Folder of each node to which shards are copied ahead of need, such as $SLURM_TMPDIR: variables and ~ are expanded
    on the node, when the data is opened. URLs need it; None: local shards are read where they lie."""
    cache_gib: float | None = Field(None, gt=0)
    """GiB that copies of shards may take there; those used longest ago go first. None: as much as its disk has."""
    mirror: bool = False
    """Mirror each image left-right with probability one half (not for digits or text)."""
    holdout: Share = 0.0
    """Share of the samples kept out of training, for audits; which ones depends on the recipe's seed."""
    on_error: Literal["stop", "skip"] = "stop"
    """What a damaged sample does: stop the run, naming shard and key; or give another one of its shard and class in its
    place and be listed in RUN/bad_samples.jsonl. Of a damaged streamed shard, the samples before the damage are given.
    A missing shard or index always stops."""
    max_bad_fraction: Share = 0.01
    """Share of the last 10,000 images, above which damaged ones stop a run that skips them."""
    num_workers: int = Field(2, ge=0)
    """Processes that read and decode, on each rank; 0 decodes in the training process."""
    shuffle_window_shards: int = Field(8, ge=1)
    """Shards among which samples are permuted; part of what the data order depends on."""
    balance: BalanceText = NO_BALANCE
    """How often each class comes in an epoch: none (as often as it has samples), class (all equally often), or
    temperature(T) (in proportion to its number of samples to the power of 1/T); part of what the data order depends
    on."""
    max_pixels: PositiveCount = DEFAULT_MAX_PIXELS
    """Images that claim more pixels than this are refused before they are decoded."""
    allow_sorted: bool = False
    """Train even on shards whose samples are sorted by class (batches will hold few classes)."""

    @field_validator("shards", "shards_b")
    @classmethod
    def _refuse_other_places(cls, shards: str | None) -> str | None:
        locations(shards or "")
        return shards

    @property
    def places(self) -> tuple[str, ...]:
        """What names shards: of one set, or of two."""
        return (self.shards,) if self.shards_b is None else (self.shards, self.shards_b)

    def problems(self) -> Iterator[str]:
        """Yield one sentence for each rule between keys that is broken."""
        yield from self._mode_problems()
        named = [each for place in self.places for each in locations(place)]
        remote = next((each.scheme for each in named if each.scheme is not None), None)
        if self.mode == "stream":
            if remote is not None and not self.num_workers:
                yield (
                    f"data.num_workers: 0 reads in the process that trains, which shards under {remote}:// cannot be; "
                    "give 1 or more"
                )
            return
        if self.cache_dir is None and remote is not None:
            yield (
                f"data.cache_dir: is missing, but shards under {remote}:// are read from copies on a node's disk; "
                "name a folder for them, such as $SLURM_TMPDIR or /tmp/shards"
            )
        if self.cache_dir is None and self.cache_gib is not None:
            yield "data.cache_gib: limits nothing while data.cache_dir is not set; set that, or delete this key"

    def _mode_problems(self) -> Iterator[str]:
        other, keys = ("indexed", INDEXED_KEYS) if self.mode == "stream" else ("stream", STREAM_KEYS)
        for key, reason in keys.items():
            if getattr(self, key) != type(self).model_fields[key].default:
                yield f"data.{key}: {reason}; delete it, or take data.mode: {other}"

    def stream(self, seed: int, image: ImageSpec) -> StreamSet:
        """Find the shards to stream; the recipe says what their images are.

        Raises:
            DataError: see `StreamSet.open`.
        """
        how = Streaming(
            seed, self.label_key, self.shuffle_samples, self.max_pixels, self.on_error, self.max_bad_fraction
        )
        return StreamSet.open(self.shards, image, how)

    def build(self, seed: int) -> ShardSet:
        """Open the training part of the shards.

        Raises:
            DataError: see `ShardSet.open`; also, shards are sorted by class and `allow_sorted` is off, or a shuffle
                window does not fit the cache.
            RecipeError: `cache_dir` names a variable that is not set here.
        """
        shards = self._open(self.shards, seed)
        if self.shards_b is not None:
            second = self._open(self.shards_b, second_seed(seed))
            refuse_unlike(shards, second)
            shards = replace(shards, second=second)
        if self.cache_gib is not None:
            indexes = [shards.index] if shards.second is None else [shards.index, shards.second.index]
            check_room(indexes, self.shuffle_window_shards, self.cache_gib)
        return shards

    def _open(self, place: str, seed: int) -> ShardSet:
        staging = None if self.cache_dir is None else Staging(expanded(self.cache_dir), self.cache_gib)
        shards = ShardSet.open(place, self.holdout, seed, self.max_pixels, staging)
        if not self.allow_sorted:
            refuse_sorted(shards.index, self.shuffle_window_shards)
        return replace(shards, on_error=self.on_error)


def refuse_unlike(first: ShardSet, second: ShardSet) -> None:
    """Check that two sets can be trained on together unpaired.

    Raises:
        DataError: their images differ in size, channels or number of classes, or one of them holds pairs.
    """
    for shards in (first, second):
        if shards.sample_kind != "image":
            raise DataError(
                f"data.shards_b: {shards.where} holds pairs of images, and a second set stands beside single ones; "
                "leave data.shards_b out, or name sets of single images"
            )
    if first.spec != second.spec:
        raise DataError(
            f"data.shards_b: {second.where} holds {_form(second.spec)}, and {first.where} {_form(first.spec)}; bring "
            "both to one size, number of channels and number of classes"
        )


def _form(image: ImageSpec) -> str:
    height, width = image.size
    return f"images of {width}x{height}x{image.channels} in {image.num_classes} classes"


def expanded(cache_dir: str) -> Path:
    """Return the folder that `data.cache_dir` means on this node.

    Raises:
        RecipeError: it names a variable that is not set, or empty.
    """
    for match in _VARIABLE.finditer(cache_dir):
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise RecipeError(
                f"data.cache_dir: '{cache_dir}' names ${name}, which is not set here; set it where the run starts (not "
                "every site sets SLURM_TMPDIR), or write a path"
            )
    return Path(os.path.expandvars(cache_dir)).expanduser()
