"""Penalties against judges whose gradients are known by hand, and against each other."""

import math

import pytest
import torch
from torch import Tensor

from bigtrain.losses.penalties import (
    consistency,
    gradient_penalty,
    gradient_square,
    gradient_square_by_difference,
    lecam,
    path_lengths,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(slope: float):
    """A judge slope * sum(image): its gradient is `slope` in every one of the CHW components."""
    return lambda image_NCHW: slope * image_NCHW.sum((1, 2, 3))


def quadratic(image_NCHW: Tensor) -> Tensor:
    """A judge sum(image^2) / 2: its gradient is the image."""
    return image_NCHW.square().sum((1, 2, 3)) / 2


def test_gradient_square_of_a_linear_judge_is_its_squared_slope_times_the_components():
    square_N, logits = gradient_square(linear(3.0), torch.full((2, 1, 2, 2), 0.5))
    assert square_N.tolist() == [36.0, 36.0]
    assert logits.tolist() == [6.0, 6.0]


def test_gradient_square_of_a_quadratic_judge_is_the_squared_norm_of_each_image():
    image_NCHW = torch.tensor([[[[1.0, 2.0]]], [[[-3.0, 0.5]]]])
    assert gradient_square(quadratic, image_NCHW).square_N.tolist() == [5.0, 9.25]


def test_gradient_square_differentiates_the_sum_of_a_judges_patches():
    image_NCHW = noise(3, 2, 4, 4)
    # Each pixel is in one patch of four, weighted 5: the gradient is 5 everywhere, 32 components.
    square_N, logits = gradient_square(lambda x_NCHW: 20 * torch.nn.functional.avg_pool2d(x_NCHW, 2), image_NCHW)
    assert logits.shape == (3, 2, 2, 2)
    assert torch.allclose(square_N, torch.full((3,), 25.0 * 32, dtype=torch.float64))


def test_gradient_square_reaches_the_judges_parameters_and_not_the_images_maker():
    slope, maker = torch.tensor(3.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    image_NCHW = maker * torch.ones(2, 1, 2, 2)
    square_N, _ = gradient_square(lambda x_NCHW: slope * x_NCHW.square().sum((1, 2, 3)), image_NCHW)
    square_N.mean().backward()
    assert slope.grad is not None
    assert slope.grad.item() == pytest.approx(2 * 16 * 3.0)  # four pixels: d (4 (2 slope)^2) / d slope
    assert maker.grad is None


def test_gradient_squares_double_backward_agrees_with_numerical_differences():
    image_NCHW = noise(2, 2, 3, 3)

    def penalty(weight_DCKK: Tensor) -> Tensor:
        def judge(x_NCHW: Tensor) -> Tensor:
            return torch.nn.functional.softplus(torch.nn.functional.conv2d(x_NCHW, weight_DCKK)).sum((1, 2, 3))

        return gradient_square(judge, image_NCHW).square_N

    assert torch.autograd.gradcheck(penalty, (noise(2, 2, 2, 2, seed=1).requires_grad_(),))


def test_squares_are_float32_for_half_precision_images():
    assert gradient_square(quadratic, torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)).square_N.dtype == torch.float32


@pytest.mark.parametrize("sigma", [1.0, 1e-3])
def test_the_difference_of_a_linear_judge_is_the_slope_along_the_direction_for_any_step(sigma: float):
    image_NCHW, direction_NCHW = noise(4, 1, 2, 2), noise(4, 1, 2, 2, seed=1)
    square_N, logits = gradient_square_by_difference(linear(3.0), image_NCHW, direction_NCHW, sigma)
    expected_N = (3 * direction_NCHW.sum((1, 2, 3))).square()
    assert torch.allclose(square_N, expected_N)
    assert torch.equal(logits, linear(3.0)(image_NCHW))


def test_the_difference_converges_to_the_gradient_along_the_direction():
    image_NCHW, direction_NCHW = noise(4, 2, 3, 3), noise(4, 2, 3, 3, seed=1)
    exact_N = (image_NCHW * direction_NCHW).sum((1, 2, 3)).square()
    curvature_N = direction_NCHW.square().sum((1, 2, 3)) / 2
    for sigma in (1e-1, 1e-3, 1e-6):
        square_N, _ = gradient_square_by_difference(quadratic, image_NCHW, direction_NCHW, sigma)
        slope_N = (image_NCHW * direction_NCHW).sum((1, 2, 3)) + sigma * curvature_N
        assert torch.allclose(square_N, slope_N.square(), rtol=1e-6)
    assert torch.allclose(square_N, exact_N, rtol=1e-3)


def test_the_difference_averages_to_the_exact_square_over_normal_directions():
    count = 40_000
    image_NCHW = noise(1, 2, 3, 3).expand(count, -1, -1, -1)
    exact = gradient_square(quadratic, image_NCHW[:1]).square_N.item()
    square_N, _ = gradient_square_by_difference(quadratic, image_NCHW, noise(count, 2, 3, 3, seed=1), 1e-4)
    # One estimate has a standard deviation of sqrt(2) times the value; five of the mean's are allowed.
    assert square_N.mean().item() == pytest.approx(exact, rel=5 * math.sqrt(2 / count))
    assert square_N.std().item() == pytest.approx(math.sqrt(2) * exact, rel=0.05)


def test_the_difference_judges_once_and_sums_patches():
    calls = []

    def judge(x_NCHW: Tensor) -> Tensor:
        calls.append(len(x_NCHW))
        return 3 * x_NCHW

    image_NCHW, direction_NCHW = noise(2, 1, 2, 2), noise(2, 1, 2, 2, seed=1)
    square_N, logits = gradient_square_by_difference(judge, image_NCHW, direction_NCHW, 1e-2)
    assert calls == [4]
    assert torch.equal(logits, 3 * image_NCHW)
    assert torch.allclose(square_N, (3 * direction_NCHW.sum((1, 2, 3))).square())


def test_the_difference_refuses_what_cannot_be_meant():
    image_NCHW = torch.zeros(2, 1, 2, 2)
    with pytest.raises(AssertionError, match="sigma must be positive, got 0"):
        gradient_square_by_difference(quadratic, image_NCHW, image_NCHW, 0)
    with pytest.raises(AssertionError, match=r"directions \(1, 1, 2, 2\) for images \(2, 1, 2, 2\)"):
        gradient_square_by_difference(quadratic, image_NCHW, image_NCHW[:1], 1e-2)


def test_gradient_penalty_is_zero_for_a_judge_of_slope_one():
    real_NCHW, fake_NCHW = noise(3, 1, 2, 2), noise(3, 1, 2, 2, seed=1)
    mix_N = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    assert gradient_penalty(linear(0.5), real_NCHW, fake_NCHW, mix_N).tolist() == [0.0, 0.0, 0.0]  # sqrt(4 / 4) = 1
    # Two-sided: norms 0 and 2 cost the same; another target moves the zero.
    assert gradient_penalty(linear(1.0), real_NCHW, fake_NCHW, mix_N).tolist() == [1.0, 1.0, 1.0]
    assert gradient_penalty(linear(1.0), real_NCHW, fake_NCHW, mix_N, target=2.0).tolist() == [0.0, 0.0, 0.0]


def test_gradient_penalty_is_taken_between_real_and_fake():
    real_NCHW, fake_NCHW = torch.full((3, 1, 1, 1), 5.0), torch.full((3, 1, 1, 1), 2.0)
    # The quadratic judge's gradient is the image itself: 2, 2 + 0.5 * 3 and 5.
    penalty_N = gradient_penalty(quadratic, real_NCHW, fake_NCHW, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert penalty_N.tolist() == [1.0, 6.25, 16.0]


def test_a_gradient_of_zero_costs_one_and_spreads_no_nan():
    slope = torch.tensor(0.0, requires_grad=True)
    image_NCHW = torch.ones(2, 1, 2, 2)
    penalty_N = gradient_penalty(lambda x: slope * x.sum((1, 2, 3)), image_NCHW, image_NCHW, torch.tensor([0.1, 0.9]))
    penalty_N.sum().backward()
    assert penalty_N.tolist() == [1.0, 1.0]
    assert slope.grad is not None
    assert slope.grad.item() == 0.0


def test_gradient_penaltys_double_backward_agrees_with_numerical_differences():
    real_NCHW, fake_NCHW, mix_N = noise(2, 2, 3, 3), noise(2, 2, 3, 3, seed=1), noise(2, seed=2).sigmoid()

    def penalty(weight_CHW: Tensor) -> Tensor:
        return gradient_penalty(lambda x: (x * weight_CHW).tanh().sum((1, 2, 3)), real_NCHW, fake_NCHW, mix_N)

    assert torch.autograd.gradcheck(penalty, (noise(2, 3, 3, seed=3).requires_grad_(),))


def test_path_lengths_of_a_linear_generator_are_by_hand():
    # Image of 2x2 pixels, each the sum of all styles of layer 0 plus twice those of layer 1.
    w_NLW = noise(3, 2, 5).requires_grad_()
    level_N = w_NLW[:, 0].sum(1) + 2 * w_NLW[:, 1].sum(1)
    image_NCHW = level_N.view(3, 1, 1, 1).expand(3, 1, 2, 2)
    noise_NCHW = torch.ones(3, 1, 2, 2, dtype=torch.float64)
    # Projection: 4 pixels / sqrt(4) = 2 levels. Gradient: 2 in layer 0, 4 in layer 1, five components each.
    expected = math.sqrt((5 * 4 + 5 * 16) / 2)
    assert path_lengths(image_NCHW, w_NLW, noise_NCHW).tolist() == pytest.approx([expected] * 3)
    wide_NCHW = level_N.view(3, 1, 1, 1).expand(3, 1, 4, 6)
    wide = path_lengths(wide_NCHW, w_NLW, torch.ones(3, 1, 4, 6, dtype=torch.float64))
    assert wide.tolist() == pytest.approx([expected * math.sqrt(24) / 2] * 3)


def test_path_lengths_agree_with_numerical_differences():
    noise_NCHW, mixer = noise(2, 1, 3, 3, seed=2), noise(4, 9, seed=3)

    def lengths(w_NLW: Tensor, gain: Tensor) -> Tensor:
        image_NCHW = (gain * w_NLW.flatten(1) @ mixer).tanh().view(2, 1, 3, 3)
        return path_lengths(image_NCHW, w_NLW, noise_NCHW)

    inputs = (noise(2, 2, 2).requires_grad_(), noise(4, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lengths, inputs)


def test_a_path_length_of_zero_spreads_no_nan():
    gain, w_NLW = torch.tensor(0.0, requires_grad=True), torch.ones(1, 1, 4, requires_grad=True)
    length_N = path_lengths((gain * w_NLW).view(1, 1, 2, 2), w_NLW, torch.ones(1, 1, 2, 2))
    length_N.sum().backward()
    assert length_N.tolist() == [0.0]
    assert gain.grad is not None
    assert gain.grad.item() == 0.0


def test_lecam_draws_each_side_to_the_others_mean():
    logit_real, logit_fake = torch.tensor([2.0, -1.0]), torch.tensor([[-3.0], [1.0]])
    mean_real, mean_fake = torch.tensor(0.5), torch.tensor(-1.0)
    # Gaps: 3, 0 and -3.5, 0.5.
    assert lecam(logit_real, logit_fake, mean_real, mean_fake).item() == pytest.approx(9 / 2 + (12.25 + 0.25) / 2)
    # One-sided: real above the fake mean (3, 0), fake below the real mean (3.5, none).
    one_sided = lecam(logit_real, logit_fake, mean_real, mean_fake, one_sided=True)
    assert one_sided.item() == pytest.approx(9 / 2 + 12.25 / 2)


def test_lecam_takes_means_as_constants():
    logit_real, mean_fake = torch.tensor([2.0], requires_grad=True), torch.tensor(1.0, requires_grad=True)
    lecam(logit_real, torch.zeros(1), torch.zeros(()), mean_fake).backward()
    assert logit_real.grad is not None
    assert logit_real.grad.tolist() == [2.0]
    assert mean_fake.grad is None


def test_consistency_is_the_mean_squared_difference_and_moves_both_sides():
    logit = torch.tensor([1.0, 2.0], requires_grad=True)
    augmented = torch.tensor([3.0, 1.0], requires_grad=True)
    value = consistency(logit, augmented)
    value.backward()
    assert value.item() == 2.5
    assert logit.grad is not None
    assert augmented.grad is not None
    assert logit.grad.tolist() == [-2.0, 1.0]
    assert augmented.grad.tolist() == [2.0, -1.0]


def test_consistency_refuses_logits_that_would_broadcast():
    with pytest.raises(AssertionError, match="come in pairs"):
        consistency(torch.zeros(3), torch.zeros(3, 1))
