"""How a recipe's batch is dealt to the ranks at hand: the largest micro-batch that fits memory and statistics,
accumulation derived."""

from collections.abc import Iterator

from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.layout import Layout, group_fits

LISTED_WORLDS = 6  # world sizes named in an error


def fitting_micro_images(batch_images: int, world: int, ceiling: int | None, group_images: int | None) -> list[int]:
    """Return all micro-batch sizes at most `ceiling` that divide a rank's share and whose statistics groups come out
    whole, largest first."""
    if batch_images % world:
        return []
    share = batch_images // world
    sizes = range(min(share, ceiling or share), 0, -1)
    return [m for m in sizes if share % m == 0 and (group_images is None or group_fits(group_images, m, world))]


def fitting_layouts(batch_images: int, ceiling: int | None, group_images: int | None) -> Iterator[tuple[int, int]]:
    """Yield every (world, micro-batch) that the recipe can run on, the largest micro-batch of each world."""
    for world in range(1, batch_images + 1):
        sizes = fitting_micro_images(batch_images, world, ceiling, group_images)
        if sizes:
            yield world, sizes[0]


def choose_layout(batch_images: int, ceiling: int | None, group_images: int | None, rank: int, world: int) -> Layout:
    """Return this rank's layout.

    Raises:
        RecipeError: the batch cannot be dealt to so many ranks; the sentence lists world sizes that work.
    """
    sizes = fitting_micro_images(batch_images, world, ceiling, group_images)
    if sizes:
        return Layout(rank, world, sizes[0], batch_images)
    pairs = list(fitting_layouts(batch_images, ceiling, group_images))
    near = sorted(sorted(pairs, key=lambda pair: abs(pair[0] - world))[:LISTED_WORLDS])
    listed = ", ".join(f"{w} x {m}" for w, m in near) or "none"
    groups = f" in statistics groups of batchnorm_images ({group_images})" if group_images else ""
    limit = f" and at most max_micro_batch_images ({ceiling}) a forward pass" if ceiling else ""
    raise RecipeError(
        f"batch_images: {batch_images} cannot be dealt to {world} process(es){groups}{limit}; "
        f"(processes x micro-batch) that fit: {listed}"
    )
