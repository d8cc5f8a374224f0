"""Color transformations on pixels computed by hand."""

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from bigtrain.augment.color import color_map, recolor
from bigtrain.augment.slots import Slots
from tests.augment.numbers import HALF, drawn_by, images, numbers_of

NORMAL = NormalDist().inv_cdf
PIXEL = [0.3, -0.6, 0.9]  # gray 0.2, and (0.1, -0.8, 0.7) from it


def mapped(pixel: list[float], *chosen: str, **unit: float) -> list[float]:
    """One pixel after the color transformations that are chosen."""
    map_N44, _ = color_map(Slots(numbers_of(*chosen, **unit), HALF))
    image_NCHW = torch.tensor(pixel, dtype=torch.float64).view(1, -1, 1, 1)
    return recolor(image_NCHW, map_N44[:, :3]).flatten().tolist()


def test_no_choice_is_the_identity():
    map_N44, recolored_N = color_map(Slots(numbers_of(), HALF))
    assert torch.allclose(map_N44[0], torch.eye(4, dtype=torch.float64), atol=1e-15)
    assert recolored_N.tolist() == [False]


@pytest.mark.parametrize("name", ["brightness", "contrast", "luma", "hue", "saturation"])
def test_each_transformation_alone_marks_its_image(name: str):
    assert color_map(Slots(numbers_of(name), HALF))[1].tolist() == [True]


def test_brightness_adds_the_same_to_every_channel():
    added = 0.2 * NORMAL(0.8)
    assert mapped(PIXEL, "brightness", brightness=0.8) == pytest.approx([0.3 + added, -0.6 + added, 0.9 + added])


def test_contrast_multiplies_every_channel():
    factor = 2 ** (0.5 * NORMAL(0.1))
    assert mapped(PIXEL, "contrast", contrast=0.1) == pytest.approx([0.3 * factor, -0.6 * factor, 0.9 * factor])


def test_luma_flip_turns_the_gray_part_over_for_half_of_the_chosen():
    assert mapped(PIXEL, "luma", luma=0.4) == pytest.approx([-0.2 + 0.1, -0.2 - 0.8, -0.2 + 0.7])
    assert mapped(PIXEL, "luma", luma=0.6) == pytest.approx(PIXEL)


def test_luma_flip_twice_is_the_identity():
    once = mapped(PIXEL, "luma", luma=0.4)
    assert mapped(once, "luma", luma=0.4) == pytest.approx(PIXEL)


def test_a_third_of_a_hue_turn_moves_channels_round():
    # An angle of 120 degrees about the gray axis: red becomes green becomes blue.
    third = 0.5 + 1 / 3
    assert mapped(PIXEL, "hue", hue=third) == pytest.approx([0.9, 0.3, -0.6])
    assert mapped(PIXEL, "hue", hue=1 - third) == pytest.approx([-0.6, 0.9, 0.3])


def test_hue_keeps_gray_and_the_distance_from_it():
    turned = torch.tensor(mapped(PIXEL, "hue", hue=0.77))
    assert turned.mean().item() == pytest.approx(0.2)
    assert (turned - 0.2).norm().item() == pytest.approx(math.sqrt(0.1**2 + 0.8**2 + 0.7**2))


def test_saturation_multiplies_the_distance_from_gray():
    factor = 2 ** NORMAL(0.9)
    expected = [0.2 + 0.1 * factor, 0.2 - 0.8 * factor, 0.2 + 0.7 * factor]
    assert mapped(PIXEL, "saturation", saturation=0.9) == pytest.approx(expected)


def test_transformations_follow_each_other_in_the_papers_order():
    # Brightness before contrast before luma flip; hue and saturation only see what differs from gray.
    unit = {"brightness": 0.8, "contrast": 0.1, "luma": 0.4, "saturation": 0.9}
    added, factor, vivid = 0.2 * NORMAL(0.8), 2 ** (0.5 * NORMAL(0.1)), 2 ** NORMAL(0.9)
    gray = -(0.2 + added) * factor
    expected = [gray + vivid * factor * part for part in (0.1, -0.8, 0.7)]
    assert mapped(PIXEL, "brightness", "contrast", "luma", "saturation", **unit) == pytest.approx(expected)


def test_a_gray_image_is_one_of_three_equal_channels():
    chosen = ("brightness", "contrast", "luma", "hue", "saturation")
    unit = {"brightness": 0.8, "contrast": 0.1, "luma": 0.4, "hue": 0.7, "saturation": 0.9}
    one, three = mapped([0.4], *chosen, **unit), mapped([0.4] * 3, *chosen, **unit)
    assert three == pytest.approx(one * 3)
    assert one[0] == pytest.approx(-(0.4 + 0.2 * NORMAL(0.8)) * 2 ** (0.5 * NORMAL(0.1)))


def test_every_image_has_its_own_colors():
    image_NCHW = images(3, 3, 2, 4)
    map_N44, _ = color_map(Slots(drawn_by(0, 1, 2), torch.tensor(1.0)))
    both = recolor(image_NCHW, map_N44[:, :3])
    for place in range(3):
        pixel: Tensor = map_N44[place, :3, :3] @ image_NCHW[place, :, 1, 2] + map_N44[place, :3, 3]
        assert torch.allclose(both[place, :, 1, 2], pixel)


def test_laws_have_the_papers_deviations():
    slots = Slots(drawn_by(*range(20_000)), torch.tensor(1.0))
    map_N44, _ = color_map(slots)
    # The determinant is contrast^3 * luma flip * saturation^2.
    flipped_N = torch.linalg.det(map_N44[:, :3, :3]) < 0
    assert flipped_N.double().mean().item() == pytest.approx(0.5, abs=0.02)
    contrast_N = map_N44[:, :3, :3].sum((1, 2)).div(3).abs().log2()
    assert contrast_N.std().item() == pytest.approx(0.5, rel=0.03)
    assert contrast_N.mean().item() == pytest.approx(0, abs=0.02)
    saturation_N = torch.linalg.det(map_N44[:, :3, :3]).abs().log2() / 2 - 1.5 * contrast_N
    assert saturation_N.std().item() == pytest.approx(1, rel=0.03)
    added_N = map_N44[:, :3, 3].mean(1).abs() / torch.exp2(contrast_N)
    assert added_N.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.03)
