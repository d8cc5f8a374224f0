"""Objectives against numbers derived by hand."""

import math

import pytest
import torch
from torch import Tensor

from bigtrain.losses.adversarial import OBJECTIVES
from bigtrain.recipe.errors import RecipeError

REAL = torch.tensor([2.0, 0.5, -1.0], dtype=torch.float64)
FAKE = torch.tensor([-3.0, 0.0, 1.0], dtype=torch.float64)


def softplus(value: float) -> float:
    """log(1 + exp(value)), by the textbook."""
    return math.log(1 + math.exp(value))


LOG_REAL = (softplus(-2.0) + softplus(-0.5) + softplus(1.0)) / 3
LOG_FAKE = (softplus(-3.0) + softplus(0.0) + softplus(1.0)) / 3
BY_HAND = {
    # (0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3; -(-3 + 0 + 1) / 3
    "hinge": (5.5 / 3, 2 / 3),
    "non_saturating": (LOG_REAL + LOG_FAKE, (softplus(3.0) + softplus(0.0) + softplus(-1.0)) / 3),
    "minimax": (LOG_REAL + LOG_FAKE, -LOG_FAKE),
    # (1 + 0.25 + 4) / 6 + (9 + 0 + 1) / 6; (16 + 1 + 0) / 6
    "least_squares": (15.25 / 6, 17 / 6),
    # -2/3 - 1.5/3; 2/3
    "wasserstein": (-3.5 / 3, 2 / 3),
    # f - r = -5, -0.5, 2
    "relativistic": (
        (softplus(-5.0) + softplus(-0.5) + softplus(2.0)) / 3,
        (softplus(5.0) + softplus(0.5) + softplus(-2.0)) / 3,
    ),
}
# Derivative of the generator's loss by each fake logit, times 3.
SIGMOID = {value: 1 / (1 + math.exp(-value)) for value in (-5.0, -3.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 5.0)}
GENERATOR_SLOPES = {
    "hinge": [-1, -1, -1],
    "non_saturating": [-SIGMOID[3.0], -SIGMOID[0.0], -SIGMOID[-1.0]],
    "minimax": [-SIGMOID[-3.0], -SIGMOID[0.0], -SIGMOID[1.0]],
    "least_squares": [-4, -1, 0],
    "wasserstein": [-1, -1, -1],
    "relativistic": [-SIGMOID[5.0], -SIGMOID[0.5], -SIGMOID[-2.0]],
}


def test_every_objective_is_checked_by_hand():
    assert set(OBJECTIVES.names()) == set(BY_HAND) == set(GENERATOR_SLOPES)


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_losses_equal_hand_computed_numbers(name: str):
    objective = OBJECTIVES.get(name)
    discriminator, generator = BY_HAND[name]
    assert objective.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, rel=1e-12)
    assert objective.generator(FAKE, REAL).item() == pytest.approx(generator, rel=1e-12)


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_generator_slopes_equal_hand_computed_numbers(name: str):
    fake = FAKE.clone().requires_grad_()
    OBJECTIVES.get(name).generator(fake, REAL).backward()
    assert fake.grad is not None
    assert fake.grad.tolist() == pytest.approx([slope / 3 for slope in GENERATOR_SLOPES[name]], rel=1e-12)


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_patches_weigh_like_images(name: str):
    """Logits of any shape: a map of patches gives the same scalar as the same numbers in a row."""
    objective = OBJECTIVES.get(name)
    real, fake = REAL.repeat(4), FAKE.repeat(4)

    def patches(logit: Tensor) -> Tensor:
        return logit.view(3, 1, 2, 2)

    assert objective.discriminator(patches(real), patches(fake)).shape == ()
    assert torch.equal(objective.discriminator(patches(real), patches(fake)), objective.discriminator(real, fake))
    assert objective.discriminator(real, fake).item() == pytest.approx(BY_HAND[name][0], rel=1e-12)
    assert objective.generator(patches(fake), patches(real)).item() == pytest.approx(BY_HAND[name][1], rel=1e-12)


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_discriminator_is_pushed_apart_and_generator_up(name: str):
    objective = OBJECTIVES.get(name)
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    objective.discriminator(real, fake).backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert (real.grad < 0).all()
    assert (fake.grad >= 0).all()  # least squares asks fake logits to be 0, where these are
    fake.grad = None
    objective.generator(fake, real.detach()).backward()
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_extreme_logits_stay_finite_and_nan_stays_visible(name: str):
    objective = OBJECTIVES.get(name)
    far = torch.tensor([1e4, -1e4])
    assert torch.isfinite(objective.discriminator(far, -far))
    assert torch.isfinite(objective.generator(far, -far))
    nan = torch.tensor([float("nan"), 0.0])
    assert torch.isnan(objective.discriminator(nan, far))
    assert torch.isnan(objective.generator(nan, far))


def test_only_the_relativistic_generator_reads_real_logits():
    assert [name for name in OBJECTIVES.names() if OBJECTIVES.get(name).needs_real_in_generator] == ["relativistic"]
    for name in OBJECTIVES.names():
        if name != "relativistic":
            assert OBJECTIVES.get(name).generator(FAKE).item() == pytest.approx(BY_HAND[name][1], rel=1e-12)


def test_relativistic_refuses_logits_that_do_not_pair():
    objective = OBJECTIVES.get("relativistic")
    with pytest.raises(AssertionError, match="needs the logits of real images"):
        objective.generator(FAKE)
    with pytest.raises(AssertionError, match=r"real \(3,\) and fake \(3, 1\)"):
        objective.discriminator(REAL, FAKE[:, None])


def test_unknown_objective_names_the_nearest():
    with pytest.raises(RecipeError, match="hinge"):
        OBJECTIVES.get("hinje")
