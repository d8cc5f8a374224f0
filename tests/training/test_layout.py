"""The micro-batch is the largest that fits; what does not fit is refused with what does."""

import pytest

from bigtrain.recipe.errors import RecipeError
from bigtrain.training.layout import Dealing, choose_layout


def dealing(batch: int, ceiling: int | None, group: int | None, multiple: int = 1) -> Dealing:
    """What a batch with at most one kind of statistics group has to be dealt by."""
    return Dealing(batch, ceiling, () if group is None else (("batchnorm_images", group),), multiple)


@pytest.mark.parametrize(
    ("batch", "ceiling", "group", "world", "micro", "accumulation"),
    [
        (64, None, None, 1, 64, 1),
        (64, 48, None, 1, 32, 2),  # the largest divisor of 64 under 48
        (64, None, 16, 2, 32, 1),  # two groups within each rank's micro-batch
        (64, 10, 16, 2, 8, 4),  # one group over both ranks
        (2048, 64, 256, 8, 64, 4),  # one group over four ranks
        (96, 20, 16, 2, 16, 3),
    ],
)
def test_largest_micro_batch_that_fits(
    batch: int, ceiling: int | None, group: int | None, world: int, micro: int, accumulation: int
) -> None:
    layout = choose_layout(dealing(batch, ceiling, group), 0, world)
    assert (layout.micro_images, layout.accumulation) == (micro, accumulation)


def test_every_image_is_computed_once_whatever_the_layout() -> None:
    for world, _ in dealing(48, 5, 12).layouts():
        layouts = [choose_layout(dealing(48, 5, 12), rank, world) for rank in range(world)]
        numbers = [b for layout in layouts for k in range(layout.accumulation) for b in layout.positions(k)]
        assert sorted(numbers) == list(range(48))


def test_groups_lie_on_neighbouring_ranks_of_one_micro_batch() -> None:
    layouts = [choose_layout(dealing(64, 8, 16), rank, 4) for rank in range(4)]
    assert [list(layout.positions(1))[0] for layout in layouts] == [32, 40, 48, 56]


def test_a_batch_that_cannot_be_dealt_is_refused_with_what_can() -> None:
    with pytest.raises(
        RecipeError, match=r"batch_images: 64 cannot be dealt to 3 process\(es\).*1 x 64, 2 x 32, 4 x 16"
    ):
        choose_layout(dealing(64, None, 64), 0, 3)
    with pytest.raises(
        RecipeError, match=r"statistics groups of batchnorm_images \(64\) and at most max_micro_batch_images \(16\)"
    ):
        choose_layout(dealing(64, 16, 64), 0, 2)


def test_every_kind_of_group_and_the_multiple_hold_at_once() -> None:
    groups = (("batchnorm_images", 24), ("minibatch_std_images", 4))
    assert Dealing(48, 20, groups).fitting(2) == [12]  # 24: one group over both ranks; 8, 4 and 3 would leave parts
    assert Dealing(48, None, (("minibatch_std_images", 4),), multiple=8).fitting(1) == [48, 24, 16, 8]
    with pytest.raises(RecipeError, match=r"minibatch_std_images \(4\) in multiples of 32; .* that fit: none"):
        choose_layout(Dealing(48, None, groups[1:], multiple=32), 0, 1)
