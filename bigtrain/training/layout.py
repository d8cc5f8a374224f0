"""How a recipe's batch is dealt to the ranks at hand: the largest micro-batch that fits memory and statistics,
accumulation derived."""

from collections.abc import Iterator
from dataclasses import dataclass

from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.layout import Layout, group_fits

LISTED_WORLDS = 6  # world sizes named in an error


@dataclass(frozen=True)
class Dealing:
    """What a batch has to be dealt by."""

    batch_images: int
    ceiling: int | None = None
    """Most images of a micro-batch, `max_micro_batch_images`."""
    groups: tuple[tuple[str, int], ...] = ()
    """Recipe key and number of images of every kind of statistics group."""
    multiple: int = 1
    """What the number of images of a micro-batch is a multiple of."""

    def fitting(self, world: int) -> list[int]:
        """Return all micro-batch sizes on so many ranks that divide a rank's share and whose statistics groups come out
        whole, largest first."""
        if self.batch_images % world:
            return []
        share = self.batch_images // world
        sizes = range(min(share, self.ceiling or share), 0, -1)
        return [m for m in sizes if share % m == 0 and m % self.multiple == 0 and self._groups_fit(m, world)]

    def _groups_fit(self, micro_images: int, world: int) -> bool:
        return all(group_fits(images, micro_images, world) for _, images in self.groups)

    def layouts(self) -> Iterator[tuple[int, int]]:
        """Yield every (world, micro-batch) that the recipe can run on, the largest micro-batch of each world."""
        for world in range(1, self.batch_images + 1):
            sizes = self.fitting(world)
            if sizes:
                yield world, sizes[0]


def choose_layout(dealing: Dealing, rank: int, world: int) -> Layout:
    """Return this rank's layout.

    Raises:
        RecipeError: the batch cannot be dealt to so many ranks; the sentence lists world sizes that work.
    """
    sizes = dealing.fitting(world)
    if sizes:
        return Layout(rank, world, sizes[0], dealing.batch_images)
    pairs = list(dealing.layouts())
    near = sorted(sorted(pairs, key=lambda pair: abs(pair[0] - world))[:LISTED_WORLDS])
    listed = ", ".join(f"{w} x {m}" for w, m in near) or "none"
    groups = "".join(f" in statistics groups of {key} ({images})" for key, images in dealing.groups)
    limit = f" and at most max_micro_batch_images ({dealing.ceiling}) a forward pass" if dealing.ceiling else ""
    multiple = f" in multiples of {dealing.multiple}" if dealing.multiple > 1 else ""
    raise RecipeError(
        f"batch_images: {dealing.batch_images} cannot be dealt to {world} process(es){groups}{limit}{multiple}; "
        f"(processes x micro-batch) that fit: {listed}"
    )
