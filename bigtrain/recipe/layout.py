"""Which image of a global batch is computed where: image b belongs to micro-batch b // (world * micro) of rank (b //
micro) % world."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How one optimizer step's `batch_images` are dealt to ranks and micro-batches."""

    rank: int
    world: int
    micro_images: int
    batch_images: int

    def __post_init__(self) -> None:
        assert self.batch_images % (self.world * self.micro_images) == 0, self

    @property
    def accumulation(self) -> int:
        """Micro-batches per turn on one rank."""
        return self.batch_images // (self.world * self.micro_images)

    def positions(self, micro_index: int) -> range:
        """Numbers of the images, within the global batch, that this rank computes in its `micro_index`-th
        micro-batch."""
        start = (micro_index * self.world + self.rank) * self.micro_images
        return range(start, start + self.micro_images)


def group_fits(group_images: int, micro_images: int, world: int) -> bool:
    """Tell whether groups of exactly `group_images` consecutive images fall on whole micro-batches or whole groups of
    ranks."""
    if group_images <= micro_images:
        return micro_images % group_images == 0
    return group_images % micro_images == 0 and world % (group_images // micro_images) == 0
