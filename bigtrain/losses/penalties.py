"""Penalties: what discriminator and generator pay besides their objective, as functions of judges, images and logits.

* `gradient_square`: R1 on real images and R2 on generated ones (Mescheder et al. 2018, arXiv:1801.04406, eq. 9 and 10);
  `gradient_square_by_difference` estimates it without a double backward (Lin et al. 2025, arXiv:2501.08316).
* `gradient_penalty`: WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3).
* `path_lengths`: StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, eq. 4).
* `lecam`: LeCam (Tseng et al. 2021, arXiv:2104.03310).
* `consistency`: CR and bCR (Zhang et al. 2020, arXiv:1910.12027; Zhao et al. 2020, arXiv:2002.04724).

They carry no weight and no 1/2: R1 with gamma is `0.5 * gamma * gradient_square(...).square_N.mean()`. Nothing is drawn
here, and nothing waits for the device. Call them outside autocast: a gradient through a bfloat16 forward is a few
percent off.

A judge is a discriminator with its labels filled in: image_NCHW -> logits of any shape whose first axis is N. Where it
returns several logits an image, their sum is what is differentiated. Layers that compare images of a batch make the
gradient of one image hold those of its neighbours' logits too, as in the released StyleGAN2.
"""

# Axes: N images, C channels, H height, W width of images and of w, L layers

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Judge = Callable[[Tensor], Tensor]


class GradientSquare(NamedTuple):
    """Squared gradient norms, and the logits that the judge gave on the way."""

    square_N: Tensor
    """|d sum(logits) / d image|^2 of each image, differentiable in the judge's parameters."""
    logits: Tensor
    """Logits of the images as they were handed in, in the judge's own shape."""


def gradient_square(judge: Judge, image_NCHW: Tensor) -> GradientSquare:
    """Return the squared norm of d sum(judge(image)) / d image of each image, for a double backward.

    The images are taken as constants: no gradient flows into what made them.
    """
    leaf_NCHW = image_NCHW.detach().requires_grad_()
    logits = judge(leaf_NCHW)
    (gradient_NCHW,) = torch.autograd.grad(logits.sum(), leaf_NCHW, create_graph=True)
    return GradientSquare(_at_least_float32(gradient_NCHW).square().sum((1, 2, 3)), logits)


def gradient_square_by_difference(
    judge: Judge, image_NCHW: Tensor, direction_NCHW: Tensor, sigma: float
) -> GradientSquare:
    """Return ((D(x + sigma e) - D(x)) / sigma)^2 of each image: for e ~ N(0, I) and small sigma it estimates
    `gradient_square`, with a standard deviation of sqrt(2) times its value.

    Departs from the paper, which penalises lambda (D(x + sigma e) - D(x))^2: the division by sigma makes it an estimate
    of R1, so their lambda is a gamma of 2 lambda sigma^2. Needs one backward only.

    Args:
        judge: called once, with 2N images: those handed in, then the same moved.
        image_NCHW: taken as constants.
        direction_NCHW: e, standard normal, shaped like the images.
        sigma: length of the step, positive. Too small and rounding drowns the difference: about 1e-2 for float32.
    """
    assert sigma > 0, f"sigma must be positive, got {sigma}"
    assert direction_NCHW.shape == image_NCHW.shape, (
        f"directions {tuple(direction_NCHW.shape)} for images {tuple(image_NCHW.shape)}"
    )
    image_NCHW = image_NCHW.detach()
    moved_NCHW = image_NCHW + sigma * direction_NCHW.to(image_NCHW.dtype)
    logits, moved = judge(torch.cat([image_NCHW, moved_NCHW])).chunk(2)
    slope_N = (_at_least_float32(moved) - _at_least_float32(logits)).reshape(len(image_NCHW), -1).sum(1) / sigma
    return GradientSquare(slope_N.square(), logits)


def gradient_penalty(judge: Judge, real_NCHW: Tensor, fake_NCHW: Tensor, mix_N: Tensor, target: float = 1.0) -> Tensor:
    """Return (|d judge / d image| - target)^2 [N] at the points mix * real + (1 - mix) * fake; two-sided.

    Images are taken as constants; `mix_N` is uniform in (0, 1). Where a gradient is exactly zero the penalty is
    target^2, with a subgradient of zero.
    """
    mix_N111 = mix_N.to(real_NCHW.dtype).view(-1, 1, 1, 1)
    between_NCHW = mix_N111 * real_NCHW + (1 - mix_N111) * fake_NCHW
    return (_root(gradient_square(judge, between_NCHW).square_N) - target).square()


def path_lengths(image_NCHW: Tensor, w_NLW: Tensor, noise_NCHW: Tensor) -> Tensor:
    """Return the length [N] of d sum(image * noise) / sqrt(H W) / d w: root of the mean over layers of squared norms.

    The penalty is the mean of (length - a)^2, with a the moving average of lengths.

    Args:
        image_NCHW: computed from `w_NLW`, with its graph.
        w_NLW: styles that require gradient, one a layer.
        noise_NCHW: standard normal, shaped like the images; the division by sqrt(H W) happens here.
    """
    scale = 1 / math.sqrt(image_NCHW.shape[2] * image_NCHW.shape[3])
    projection = (_at_least_float32(image_NCHW) * noise_NCHW).sum() * scale
    (gradient_NLW,) = torch.autograd.grad(projection, w_NLW, create_graph=True)
    return _root(_at_least_float32(gradient_NLW).square().sum(2).mean(1))


def lecam(
    logit_real: Tensor, logit_fake: Tensor, mean_real: Tensor, mean_fake: Tensor, *, one_sided: bool = False
) -> Tensor:
    """Return E[(D(x) - mean_fake)^2] + E[(D(G(z)) - mean_real)^2], a scalar: each side is drawn to the other's mean.

    Args:
        logit_real: logits of real images, any shape.
        logit_fake: logits of generated images, any shape.
        mean_real: moving average of real logits, taken as a constant (0-d).
        mean_fake: moving average of generated logits, taken as a constant (0-d).
        one_sided: False is the paper's equation. True only counts D(x) above mean_fake and D(G(z)) below mean_real, as
            the authors' released code does.
    """
    gap_real = _at_least_float32(logit_real) - mean_fake.detach()
    gap_fake = mean_real.detach() - _at_least_float32(logit_fake)
    if one_sided:
        gap_real, gap_fake = gap_real.relu(), gap_fake.relu()
    return gap_real.square().mean() + gap_fake.square().mean()


def consistency(logit: Tensor, logit_augmented: Tensor) -> Tensor:
    """Return the mean squared difference of the logits of images and of the same images augmented, a scalar.

    Both sides get gradient, as in the paper. bCR adds one such term for real and one for generated images.
    """
    assert logit.shape == logit_augmented.shape, (
        f"logits come in pairs, got {tuple(logit.shape)} and augmented {tuple(logit_augmented.shape)}"
    )
    return (_at_least_float32(logit) - _at_least_float32(logit_augmented)).square().mean()


def _root(square_N: Tensor) -> Tensor:
    """Return the square root, with a gradient of zero at zero, where that of sqrt is infinite."""
    positive_N = square_N > 0
    return torch.where(positive_N, torch.where(positive_N, square_N, 1.0).sqrt(), 0.0)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
