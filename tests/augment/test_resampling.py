"""Affine resampling against images whose mirrored continuation is a formula, and its derivatives."""

import math

import pytest
import torch
from torch import Tensor

from bigtrain.augment.resampling import MARGIN, SYM6, banded, bilinear, bilinear_by_gather, mirrored, warp
from tests.augment.numbers import images

TAPS = torch.tensor(SYM6, dtype=torch.float64)
HEIGHT, WIDTH = 40, 48


def places() -> tuple[Tensor, Tensor]:
    """x and y of every pixel, from the first."""
    y_HW, x_HW = torch.meshgrid(torch.arange(HEIGHT).double(), torch.arange(WIDTH).double(), indexing="ij")
    return x_HW, y_HW


def waves(x: Tensor, y: Tensor) -> Tensor:
    """Slow waves that are even about the first and the last pixel: their mirrored continuation is themselves."""
    x, y = x * math.pi / (WIDTH - 1), y * math.pi / (HEIGHT - 1)
    return torch.cos(3 * x) * torch.cos(2 * y) + 0.5 * torch.cos(5 * x) - 0.5 * torch.cos(4 * y)


def source_of(scale: float, angle: float, x: float, y: float) -> Tensor:
    """Scaling, then rotation, then translation, as a source matrix."""
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return torch.tensor(
        [[[cos, sin, -cos * x - sin * y], [-sin, cos, sin * x - cos * y]]],
        dtype=torch.float64,
    )


def test_the_filter_is_orthogonal_to_its_even_shifts_and_blind_to_polynomials_at_the_highest_frequency():
    for shift in range(6):
        product = (TAPS[: 12 - 2 * shift] * TAPS[2 * shift :]).sum().item()
        assert product == pytest.approx(float(shift == 0), abs=1e-11)
    sign_T, place_T = (-1.0) ** torch.arange(12), torch.arange(12).double() / 12
    for power in range(6):
        assert (TAPS * sign_T * place_T**power).sum().item() == pytest.approx(0, abs=1e-11)


@pytest.mark.parametrize("shape", [(2, 3, 12, 10), (1, 1, 3, 2), (1, 1, 31, 64)])
def test_the_identity_returns_any_image(shape: tuple[int, ...]):
    image_NCHW = images(*shape)
    still = torch.eye(2, 3, dtype=torch.float64).expand(shape[0], 2, 3)
    assert torch.allclose(warp(image_NCHW, still, TAPS), image_NCHW, atol=1e-10)
    # Only the numbers that cross are float32, not the formula.
    assert torch.allclose(warp(image_NCHW.float(), still, TAPS.float()), image_NCHW.float(), atol=1e-4)


@pytest.mark.parametrize(
    "move",
    [
        (1.0, 0.0, 0.4, -2.7),
        (1.0, math.radians(30), 0.0, 0.0),
        (1.0, math.radians(-100), 3.3, 1.0),
        (1.3, math.radians(200), -5.0, 8.0),
        (0.8, math.radians(45), 11.0, -9.0),
        (0.6, 0.1, 30.0, 25.0),
    ],
)
def test_smooth_images_are_moved_to_where_a_formula_says_they_are(move: tuple[float, float, float, float]):
    x_HW, y_HW = places()
    source = source_of(*move)
    moved_HW = warp(waves(x_HW, y_HW)[None, None], source, TAPS)[0, 0]
    (a, b, c), (d, e, f) = source[0].tolist()
    from_x, from_y = x_HW - (WIDTH - 1) / 2, y_HW - (HEIGHT - 1) / 2
    from_x, from_y = a * from_x + b * from_y + c + (WIDTH - 1) / 2, d * from_x + e * from_y + f + (HEIGHT - 1) / 2
    # Range -2..2; bilinear lookup at double resolution flattens the fastest wave by (5 pi / 47 / 2)^2 / 8 = 0.35 %.
    assert (moved_HW - waves(from_x, from_y)).abs().max().item() < 0.02


def test_ramps_are_resampled_exactly_inside():
    x_HW, y_HW = places()
    ramp_HW = 0.3 * x_HW - 0.7 * y_HW + 2
    move = source_of(1.4, 0.5, 0.37, -1.21)
    (a, b, c), (d, e, f) = move[0].tolist()
    from_x, from_y = x_HW - (WIDTH - 1) / 2, y_HW - (HEIGHT - 1) / 2
    from_x, from_y = a * from_x + b * from_y + c + (WIDTH - 1) / 2, d * from_x + e * from_y + f + (HEIGHT - 1) / 2
    expected_HW = 0.3 * from_x - 0.7 * from_y + 2
    inside_HW = (from_x > 8) & (from_x < WIDTH - 9) & (from_y > 8) & (from_y < HEIGHT - 9)
    assert inside_HW.sum() > 500
    moved_HW = warp(ramp_HW[None, None], move, TAPS)[0, 0]
    assert (moved_HW - expected_HW).abs()[inside_HW].max().item() < 1e-9


def test_shrinking_does_not_alias():
    # Stripes of two pixels, shrunk to half, are finer than pixels: what is left is their mean.
    x_HW, _ = places()
    stripes = (x_HW % 2 * 2 - 1)[None, None]
    shrunk = warp(stripes, source_of(0.5, 0.0, 0.25, 0.0), TAPS)
    assert stripes.abs().min().item() == 1
    assert shrunk[..., MARGIN:-MARGIN, MARGIN:-MARGIN].abs().max().item() < 0.2


def test_the_two_lookups_agree_and_are_numbers_by_hand():
    image_NCHW = torch.tensor([[[[0.0, 4.0, 8.0], [10.0, 14.0, 18.0]]]])
    x, y = torch.tensor([[[0.0, 0.25, 2.0, 1.5]]]), torch.tensor([[[0.0, 0.5, 1.0, 1.0]]])
    for lookup in (bilinear, bilinear_by_gather):
        assert lookup(image_NCHW, x, y).flatten().tolist() == pytest.approx([0, 6, 18, 16], abs=1e-5)
    image_NCHW = images(3, 2, 7, 9)
    x, y = 8 * images(3, 5, 4, seed=1).sigmoid(), 6 * images(3, 5, 4, seed=2).sigmoid()
    assert torch.allclose(bilinear(image_NCHW, x, y), bilinear_by_gather(image_NCHW, x, y), atol=1e-12)


@pytest.mark.parametrize("lookup", [bilinear, bilinear_by_gather])
def test_lookups_are_differentiable_twice(lookup):
    x, y = 4 * images(2, 3, 4, seed=1).sigmoid(), 3 * images(2, 3, 4, seed=2).sigmoid()
    image_NCHW = images(2, 2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda image: lookup(image, x, y), image_NCHW)
    assert torch.autograd.gradgradcheck(lambda image: lookup(image, x, y).sin(), image_NCHW)


def test_warps_are_differentiable_twice():
    move = torch.cat([source_of(1.2, 0.7, 0.3, -0.8), source_of(0.7, -2.0, 2.0, 1.0)])
    image_NCHW = images(2, 1, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda image: warp(image, move, TAPS), image_NCHW)
    assert torch.autograd.gradgradcheck(lambda image: warp(image, move, TAPS).sin(), image_NCHW)


def test_a_single_row_cannot_be_mirrored():
    with pytest.raises(AssertionError, match="1x4 pixels cannot be mirrored"):
        warp(torch.zeros(1, 1, 1, 4), torch.eye(2, 3)[None], TAPS.float())


def test_bands_and_mirroring_by_hand():
    band = banded(torch.tensor([1.0, 2.0, 3.0]), torch.arange(-1, 4))
    assert band.tolist() == [0, 1, 2, 3, 0]
    # Places -2..2 of a line of three are 2, 1, 0, 1, 2.
    assert mirrored(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]), -2, 3).tolist() == [[3, 2 + 4, 1 + 5]]
