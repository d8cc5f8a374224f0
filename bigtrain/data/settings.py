"""The `data` section of a recipe."""

from typing import Literal

from pydantic import Field

from bigtrain.data.decode import DEFAULT_MAX_PIXELS
from bigtrain.data.mixing import refuse_sorted
from bigtrain.data.shards import ShardSet
from bigtrain.recipe.settings import PositiveCount, Settings, Share


class DataSettings(Settings):
    """Which images are trained on, and how they are read."""

    shards: str
    """Folder of indexed shards, as `bigtrain shards` writes it."""
    mirror: bool = False
    """Mirror each image left-right with probability one half (not for digits or text)."""
    holdout: Share = 0.0
    """Share of the samples kept out of training, for audits; which ones depends on the recipe's seed."""
    on_error: Literal["stop"] = "stop"
    """What a damaged sample does: stop the run, naming shard and key."""
    num_workers: int = Field(2, ge=0)
    """Processes that read and decode, on each rank; 0 decodes in the training process."""
    shuffle_window_shards: int = Field(8, ge=1)
    """Shards among which samples are permuted; part of what the data order depends on."""
    max_pixels: PositiveCount = DEFAULT_MAX_PIXELS
    """Images that claim more pixels than this are refused before they are decoded."""
    allow_sorted: bool = False
    """Train even on shards whose samples are sorted by class (batches will hold few classes)."""

    def build(self, seed: int) -> ShardSet:
        """Open the training part of the shards.

        Raises:
            DataError: see `ShardSet.open`; also, shards are sorted by class and `allow_sorted` is off.
        """
        shards = ShardSet.open(self.shards, self.holdout, seed, self.max_pixels)
        if not self.allow_sorted:
            refuse_sorted(shards.index, self.shuffle_window_shards)
        return shards
