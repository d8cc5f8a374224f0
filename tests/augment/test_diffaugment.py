"""DiffAugment on pixels computed by hand, and the reach of its translations and holes."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from bigtrain.augment.diffaugment import DiffAugmentSettings
from bigtrain.augment.registry import AUGMENTATIONS
from tests.augment.numbers import HALF, drawn_by, images


def fixed(**units: list[float]):
    """Uniform numbers of one image by change; one half where none are given."""

    def uniform(name: str, *shape: int) -> Tensor:
        assert (name, shape) == ("diffaugment", (7,))
        parts = [units.get(part, [0.5] * count) for part, count in (("color", 3), ("translation", 2), ("cutout", 2))]
        return torch.tensor([[number for part in parts for number in part]], dtype=torch.float64)

    return uniform


def augmented(policy: tuple[str, ...], image_NCHW: Tensor, **units: list[float]) -> Tensor:
    """One image changed as the policy and the numbers say."""
    augmentation = DiffAugmentSettings(policy=policy).build()
    return augmentation(image_NCHW, augmentation.draw(fixed(**units), image_NCHW.shape, HALF))


def test_diffaugment_is_registered_with_the_papers_policy():
    assert AUGMENTATIONS.get("diffaugment")().policy == ("color", "translation", "cutout")
    for policy in ((), ("color", "color"), ("flip",)):
        with pytest.raises(ValidationError):
            DiffAugmentSettings(policy=policy)


def test_color_is_brightness_then_saturation_then_contrast():
    image_NCHW = torch.tensor([[[[0.1], [0.5]], [[0.3], [0.1]]]], dtype=torch.float64)
    # Brightness 0.8 - 0.5, saturation 2 * 0.1, contrast 0.9 + 0.5.
    brighter = image_NCHW + 0.3
    gray = torch.tensor([[[[0.5], [0.6]]]], dtype=torch.float64)
    paler = gray + 0.2 * (brighter - gray)
    expected = 0.55 + 1.4 * (paler - 0.55)
    result = augmented(("color",), image_NCHW, color=[0.8, 0.1, 0.9])
    assert torch.allclose(result, expected, atol=1e-7)


def test_colors_in_the_middle_of_their_ranges_change_nothing():
    image_NCHW = images(1, 3, 4, 4)
    assert torch.allclose(augmented(("color",), image_NCHW), image_NCHW)


@pytest.mark.parametrize(("unit", "shift"), [(0.01, -2), (0.3, -1), (0.5, 0), (0.7, 1), (0.99, 2)])
def test_translation_moves_whole_pixels_and_leaves_zeros(unit: float, shift: int):
    image_NCHW = images(1, 3, 16, 16)
    across = augmented(("translation",), image_NCHW, translation=[unit, 0.5])
    down = augmented(("translation",), image_NCHW, translation=[0.5, unit])
    padded = torch.nn.functional.pad(image_NCHW, (2, 2, 2, 2))
    assert torch.equal(across, padded[:, :, 2:18, 2 - shift : 18 - shift])
    assert torch.equal(down, padded[:, :, 2 - shift : 18 - shift, 2:18])


def test_translations_reach_an_eighth_of_each_side_equally_often():
    augmentation, count = DiffAugmentSettings().build(), 9_000
    drawn = augmentation.draw(drawn_by(*range(count)), (3, 16, 32), HALF)
    for name, most in (("shift_x", 4), ("shift_y", 2)):
        values, counts = drawn[name].unique(return_counts=True)
        assert values.tolist() == list(range(-most, most + 1))
        expected = count / (2 * most + 1)
        assert (counts - expected).abs().max().item() < 5 * expected**0.5


@pytest.mark.parametrize("side", [8, 9, 10, 13, 32])
def test_holes_are_half_a_side_and_reach_every_border(side: int):
    augmentation = DiffAugmentSettings(policy=("cutout",)).build()
    image_NCHW = torch.ones(2_000, 1, side, side)
    drawn = augmentation.draw(drawn_by(*range(2_000)), (1, side, side), HALF)
    middles = drawn["hole_center"].unique()
    assert torch.equal(middles, side - 1 - middles.flip(0))
    result_NCHW = augmentation(image_NCHW, drawn)
    widths = (result_NCHW[:, 0] == 0).any(1).sum(1)  # columns that are covered somewhere
    hole = int(side / 2 + 0.5)
    # Cut at the border: at least what remains when the middle is in the first or last pixel, or just outside it.
    assert widths.max().item() == hole
    assert widths.min().item() == (hole + 1) // 2
    assert set(result_NCHW.unique().tolist()) == {0.0, 1.0}
    assert (result_NCHW[:, 0].sum((1, 2)) == side**2 - widths * (result_NCHW[:, 0] == 0).any(2).sum(1)).all()


def test_a_hole_of_four_pixels_is_where_it_was_drawn():
    image_NCHW = torch.ones(1, 1, 8, 8)
    # Nine places: 0.5 is place 4, so pixels 2 to 5 across; 0.05 is place 0, so pixels 0 and 1 down.
    expected = image_NCHW.clone()
    expected[:, :, :2, 2:6] = 0
    assert torch.equal(augmented(("cutout",), image_NCHW, cutout=[0.5, 0.05]), expected)


def test_changes_follow_the_order_of_the_policy():
    image_NCHW = images(1, 1, 16, 16)
    units = {"translation": [0.99, 0.5], "cutout": [0.5, 0.5]}
    first = augmented(("translation", "cutout"), image_NCHW, **units)
    second = augmented(("cutout", "translation"), image_NCHW, **units)
    assert torch.equal(first[..., 4:12, 4:12], torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    assert torch.equal(second[..., 4:12, 6:14], torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    assert not torch.equal(first, second)


def test_an_images_numbers_do_not_depend_on_its_neighbours_or_the_policy():
    together = DiffAugmentSettings().build().draw(drawn_by(0, 1, 2, 3), (3, 8, 8), HALF)
    alone = DiffAugmentSettings(policy=("cutout",)).build().draw(drawn_by(3, 1), (3, 8, 8), HALF)
    assert all(torch.equal(alone[name], together[name][[3, 1]]) for name in together)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_and_shape_stay(dtype: torch.dtype):
    augmentation, image_NCHW = DiffAugmentSettings().build(), images(2, 3, 6, 8, dtype=dtype)
    result_NCHW = augmentation(image_NCHW, augmentation.draw(drawn_by(0, 1), image_NCHW.shape, HALF))
    assert result_NCHW.dtype == dtype
    assert result_NCHW.shape == image_NCHW.shape


def test_it_is_differentiable_twice():
    augmentation, image_NCHW = DiffAugmentSettings().build(), images(2, 3, 4, 4).requires_grad_()
    drawn = augmentation.draw(drawn_by(0, 1), image_NCHW.shape, HALF)
    assert torch.autograd.gradcheck(lambda image: augmentation(image, drawn), image_NCHW)
    assert torch.autograd.gradgradcheck(lambda image: augmentation(image, drawn).sin(), image_NCHW)


def test_compiled_augmentation_equals_the_eager_one():
    augmentation, image_NCHW = DiffAugmentSettings().build(), images(3, 3, 8, 8, dtype=torch.float32)
    drawn = augmentation.draw(drawn_by(0, 1, 2), image_NCHW.shape, HALF)
    compiled = torch.compile(augmentation, backend="aot_eager", fullgraph=True)
    results = []
    for run in (augmentation, compiled):
        leaf_NCHW = image_NCHW.clone().requires_grad_()
        result_NCHW = run(leaf_NCHW, drawn)
        result_NCHW.square().sum().backward()
        results.append((result_NCHW.detach(), leaf_NCHW.grad))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-6)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-6)


def test_nothing_reads_a_value_from_the_device():
    augmentation = DiffAugmentSettings().build()

    def uniform(name: str, *shape: int) -> Tensor:
        return torch.empty(2, *shape, dtype=torch.float64, device="meta")

    drawn = augmentation.draw(uniform, (3, 8, 8), torch.empty((), device="meta"))
    assert augmentation(torch.empty(2, 3, 8, 8, device="meta"), drawn).shape == (2, 3, 8, 8)
