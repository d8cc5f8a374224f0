"""Which image is computed where: the same groups of images whatever the world and the accumulation."""

import pytest

from bigtrain.recipe.layout import Layout, group_fits

LAYOUTS = [(1, 16), (1, 4), (1, 1), (2, 8), (2, 2), (4, 4), (4, 1), (8, 2), (16, 1)]


def owner(image, world, micro):
    """The rule of the house, written down a second time: (micro-batch, rank) of an image."""
    return image // (world * micro), (image // micro) % world


@pytest.mark.parametrize(("world", "micro"), LAYOUTS)
def test_every_image_is_computed_exactly_once_where_the_rule_says(world, micro):
    seen = []
    for rank in range(world):
        layout = Layout(rank, world, micro, 16)
        assert layout.accumulation == 16 // (world * micro)
        for micro_index in range(layout.accumulation):
            positions = layout.positions(micro_index)
            assert len(positions) == micro
            assert {owner(image, world, micro) for image in positions} == {(micro_index, rank)}
            seen += positions
    assert sorted(seen) == list(range(16))


def test_images_of_one_moment_are_neighbours_in_the_batch():
    """Groups of statistics run over consecutive images: rank after rank within a micro-batch, then the next one."""
    order = [image for m in range(2) for rank in range(2) for image in Layout(rank, 2, 3, 12).positions(m)]
    assert order == list(range(12))


@pytest.mark.parametrize(
    ("group", "micro", "world", "fits"),
    [
        (4, 8, 1, True),  # two groups inside one micro-batch
        (8, 8, 3, True),
        (16, 8, 2, True),  # one group over two ranks
        (16, 8, 4, True),  # two groups of two ranks
        (16, 8, 3, False),  # a group would span two micro-batches
        (16, 8, 1, False),
        (6, 8, 2, False),
        (12, 8, 2, False),
    ],
)
def test_groups_fit_on_whole_micro_batches_or_whole_groups_of_ranks(group, micro, world, fits):
    assert group_fits(group, micro, world) is fits
