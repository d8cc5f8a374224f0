"""Source matrices against the paper's, composed in its order and inverted."""

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from bigtrain.augment.geometry import blit_source, warp_source
from bigtrain.augment.slots import SLOTS, Slots
from tests.augment.numbers import HALF, drawn_by, numbers_of

HEIGHT, WIDTH = 24, 40
NORMAL = NormalDist().inv_cdf


def matrix(*rows: list[float]) -> Tensor:
    """A homogeneous matrix of two rows."""
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)


def scale2d(x: float, y: float) -> Tensor:
    """As the paper writes it."""
    return matrix([x, 0, 0], [0, y, 0])


def rotate2d(angle: float) -> Tensor:
    """As the paper writes it."""
    return matrix([math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0])


def translate2d(x: float, y: float) -> Tensor:
    """As the paper writes it."""
    return matrix([1, 0, x], [0, 1, y])


def test_no_choice_is_the_identity():
    slots = Slots(numbers_of(), HALF)
    source, warped_N = warp_source(slots, HEIGHT, WIDTH)
    assert torch.equal(source[0], torch.eye(3, dtype=torch.float64))
    assert torch.equal(blit_source(slots, HEIGHT, WIDTH)[0], torch.eye(3, dtype=torch.float64))
    assert warped_N.tolist() == [False]


@pytest.mark.parametrize("turn", range(4))
def test_blits_are_the_papers_in_its_order(turn: int):
    numbers = numbers_of("flip", "turn", "shift", flip=0.3, turn=turn / 4 + 0.1, shift_x=0.9, shift_y=0.2)
    # U(-0.125, 0.125) of 40 and 24 pixels: 0.1 * 40 and -0.075 * 24 = -1.8.
    forward = translate2d(4, -2) @ rotate2d(-math.pi / 2 * turn) @ scale2d(-1, 1)
    source = blit_source(Slots(numbers, HALF), HEIGHT, WIDTH)[0]
    assert torch.allclose(source, forward.inverse(), atol=1e-12)
    assert torch.equal(source, source.round())


def test_half_of_the_chosen_flips_flip():
    assert blit_source(Slots(numbers_of("flip", flip=0.51), HALF), HEIGHT, WIDTH)[0, 0, 0] == 1
    assert blit_source(Slots(numbers_of("flip", flip=0.49), HALF), HEIGHT, WIDTH)[0, 0, 0] == -1


def test_warps_are_the_papers_in_its_order():
    unit = {"scale": 0.9, "rotate_before": 0.1, "stretch": 0.3, "rotate_after": 0.85, "drift_x": 0.7, "drift_y": 0.05}
    transformations = ("scale", "rotate_before", "stretch", "rotate_after", "drift")
    source, warped_N = warp_source(Slots(numbers_of(*transformations, **unit), HALF), HEIGHT, WIDTH)
    scale, stretch = 2 ** (0.2 * NORMAL(0.9)), 2 ** (0.2 * NORMAL(0.3))
    forward = scale2d(scale, scale)
    forward = rotate2d(-2 * math.pi * (0.1 - 0.5)) @ forward
    forward = scale2d(stretch, 1 / stretch) @ forward
    forward = rotate2d(-2 * math.pi * (0.85 - 0.5)) @ forward
    forward = translate2d(0.125 * NORMAL(0.7) * WIDTH, 0.125 * NORMAL(0.05) * HEIGHT) @ forward
    assert torch.allclose(source[0], forward.inverse(), atol=1e-12)
    assert warped_N.tolist() == [True]


@pytest.mark.parametrize("name", ["scale", "rotate_before", "stretch", "rotate_after", "drift"])
def test_each_warp_alone_marks_its_image_as_warped(name: str):
    unit = {"drift_x": 0.3} if name == "drift" else {name: 0.3}
    source, warped_N = warp_source(Slots(numbers_of(name, **unit), HALF), HEIGHT, WIDTH)
    assert warped_N.tolist() == [True]
    assert not torch.allclose(source[0], torch.eye(3, dtype=torch.float64), atol=1e-3)


COUNT = 20_000
STRENGTH = 0.3
SLOTS_DRAWN = Slots(drawn_by(*range(COUNT)), torch.tensor(STRENGTH))


def assert_share(chosen_N: Tensor, chance: float):
    """Fail unless the share of True is within five binomial deviations."""
    assert chosen_N.double().mean().item() == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / COUNT))


@pytest.mark.parametrize("name", [slot[:-1] for slot in SLOTS if slot.endswith("?")])
def test_each_transformation_is_chosen_with_the_probability_asked_for(name: str):
    assert_share(SLOTS_DRAWN.chosen(name), STRENGTH)


def test_choices_are_independent():
    names = [slot[:-1] for slot in SLOTS if slot.endswith("?")]
    for first, second in zip(names, names[1:], strict=False):
        assert_share(SLOTS_DRAWN.chosen(first) & SLOTS_DRAWN.chosen(second), STRENGTH**2)


def test_rotation_before_or_after_has_the_probability_of_the_others():
    # Rotations alone: what is not scaled, stretched or moved.
    source, warped_N = warp_source(SLOTS_DRAWN, HEIGHT, WIDTH)
    assert_share(warped_N, 1 - (1 - STRENGTH) ** 4)
    others_N = SLOTS_DRAWN.chosen("scale") | SLOTS_DRAWN.chosen("stretch") | SLOTS_DRAWN.chosen("drift")
    assert_share(warped_N & ~others_N, STRENGTH * (1 - STRENGTH) ** 3)
    rotated_N = (source[:, 0, 1] != 0) & ~others_N
    assert torch.equal(rotated_N, warped_N & ~others_N)


def test_laws_have_the_papers_deviations():
    certain = Slots(drawn_by(*range(COUNT)), torch.tensor(1.0))
    source, _ = warp_source(certain, HEIGHT, WIDTH)
    scale_N = -torch.linalg.det(source).log2() / 2
    assert scale_N.mean().item() == pytest.approx(0, abs=0.01)
    assert scale_N.std().item() == pytest.approx(0.2, rel=0.03)
    forward = torch.linalg.inv(source)
    assert forward[:, 0, 2].std().item() == pytest.approx(0.125 * WIDTH, rel=0.03)
    assert forward[:, 1, 2].std().item() == pytest.approx(0.125 * HEIGHT, rel=0.03)
    # Singular values of the linear part: scale times stretch and scale over stretch.
    longest_N, shortest_N = torch.linalg.svdvals(forward[:, :2, :2]).log2().unbind(1)
    assert ((longest_N - shortest_N) / 2).square().mean().sqrt().item() == pytest.approx(0.2, rel=0.03)
    blits = torch.linalg.inv(blit_source(certain, HEIGHT, WIDTH))
    assert set(blits[:, 0, 2].round().long().tolist()) == set(range(-5, 6))
    assert set(blits[:, 1, 2].round().long().tolist()) == set(range(-3, 4))
    assert_share(torch.linalg.det(blits) < 0, 0.5)
    assert_share(blits[:, 0, 0].abs() > 0.5, 0.5)
