"""The whole of ADA: what passes untouched, what does not depend on company, derivatives, and the adaptive rule."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from bigtrain.augment.ada import PIPES, AdaSettings, adapted_probability
from bigtrain.augment.lookup import blit
from bigtrain.augment.registry import AUGMENTATIONS
from bigtrain.augment.resampling import SYM6, warp
from tests.augment.numbers import HALF, drawn_by, images, numbers_of

ALL = "bgcfnc"


def built(pipe: str):
    """The augmentation of a pipe."""
    return AdaSettings(pipe=pipe).build()


def augmented(pipe: str, image_NCHW: Tensor, strength: float, *index: int) -> Tensor:
    """Images augmented with the draws of their places in a batch."""
    ada = built(pipe)
    index = index or tuple(range(len(image_NCHW)))
    return ada(image_NCHW, ada.draw(drawn_by(*index), image_NCHW.shape, torch.tensor(strength)))


def test_ada_is_registered_with_the_papers_numbers():
    settings = AUGMENTATIONS.get("ada")()
    assert settings.model_dump() == {
        "kind": "ada",
        "pipe": "bgc",
        "probability": 0.0,
        "target": 0.6,
        "every": 4,
        "speed_images": 500_000,
    }
    assert AdaSettings(speed_images="100k", target=None).speed_images == 100_000
    with pytest.raises(ValidationError):
        AdaSettings(probability=1.1)
    with pytest.raises(ValidationError):
        AdaSettings(pipe="bgd")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pipe", sorted(PIPES))
def test_strength_zero_returns_images_to_the_last_bit(pipe: str, dtype: torch.dtype):
    image_NCHW = images(6, 3, 8, 12, dtype=dtype)
    result_NCHW = augmented(pipe, image_NCHW, 0.0)
    assert result_NCHW.dtype == dtype
    assert torch.equal(result_NCHW, image_NCHW)


def test_an_untouched_image_may_hold_what_arithmetic_would_spread():
    image_NCHW = images(2, 3, 8, 8)
    image_NCHW[0, 1, 3, 3] = torch.inf
    assert torch.equal(augmented("bgcf", image_NCHW, 0.0), image_NCHW)


@pytest.mark.parametrize("pipe", sorted(PIPES))
def test_strength_one_changes_images_and_keeps_their_shape(pipe: str):
    image_NCHW = images(6, 3, 8, 12)
    result_NCHW = augmented(pipe, image_NCHW, 1.0)
    assert result_NCHW.shape == image_NCHW.shape
    assert result_NCHW.isfinite().all()
    assert (result_NCHW != image_NCHW).flatten(1).any(1).sum() >= 5  # a blit may happen to be the identity


def test_images_that_only_get_blits_keep_their_pixels_in_every_pipe():
    image_NCHW = images(1, 3, 8, 8, dtype=torch.float32)
    ada = built("bgc")
    drawn = ada.draw(numbers_of("flip", "turn", flip=0.2, turn=0.3), image_NCHW.shape, HALF)
    result_NCHW = ada(image_NCHW, drawn)
    assert torch.equal(result_NCHW, torch.rot90(image_NCHW, -1, (2, 3)).flip(3)) or torch.equal(
        result_NCHW, torch.rot90(image_NCHW.flip(3), -1, (2, 3))
    )


def test_blits_and_geometry_of_one_image_run_through_one_resampling():
    image_NCHW, taps_T = images(1, 3, 16, 16), torch.tensor(SYM6, dtype=torch.float64)
    numbers = numbers_of("flip", "turn", "shift", "scale", flip=0.2, turn=0.3, shift_x=0.9, shift_y=0.1, scale=0.8)
    ada = built("bg")
    drawn = ada.draw(numbers, image_NCHW.shape, HALF)
    blit_N33 = torch.cat([drawn["blit"], torch.tensor([[[0.0, 0.0, 1.0]]])], dim=1)
    scale_N23 = built("geom").draw(numbers, image_NCHW.shape, HALF)["warp"]
    scale_N33 = torch.cat([scale_N23, torch.tensor([[[0.0, 0.0, 1.0]]])], dim=1)
    expected = warp(image_NCHW, (blit_N33 @ scale_N33)[:, :2], taps_T)
    assert torch.allclose(ada(image_NCHW, drawn), expected, atol=1e-6)
    # Not the same as one after the other, but near it inside.
    apart = warp(blit(image_NCHW, drawn["blit"]), scale_N23, taps_T)
    assert not torch.allclose(expected, apart, atol=1e-3)


def test_noise_has_the_strength_drawn_for_its_image():
    image_NCHW = torch.zeros(400, 3, 16, 16)
    sigma_N = augmented("noise", image_NCHW, 0.5).flatten(1).std(1)
    chosen_N = sigma_N > 0
    assert chosen_N.double().mean().item() == pytest.approx(0.5, abs=0.125)
    assert sigma_N[chosen_N].square().mean().sqrt().item() == pytest.approx(0.1, rel=0.2)


def test_cutout_is_half_a_side_wide_around_a_point_of_the_image():
    ada, image_NCHW = built("cutout"), torch.ones(1, 3, 8, 16)
    drawn = ada.draw(numbers_of("hole", hole_x=0.5, hole_y=0.25), image_NCHW.shape, HALF)
    expected_NCHW = image_NCHW.clone()
    expected_NCHW[:, :, :4, 4:12] = 0
    assert torch.equal(ada(image_NCHW, drawn), expected_NCHW)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_images_augmentation_does_not_depend_on_its_neighbours(channels: int):
    image_NCHW = images(5, channels, 12, 12)
    together = augmented(ALL, image_NCHW, 0.8)
    alone = augmented(ALL, image_NCHW[[3, 1]], 0.8, 3, 1)
    assert torch.allclose(alone, together[[3, 1]], atol=1e-12)


def test_other_steps_draw_other_augmentations():
    ada = built(ALL)
    first, second = (ada.draw(drawn_by(0, step=step), (3, 8, 8), torch.tensor(1.0)) for step in (0, 1))
    assert all(not torch.equal(first[name], second[name]) for name in ("blit", "warp", "color", "gain", "noise"))


def test_a_pipe_does_not_change_what_another_group_draws():
    both, alone = (built(pipe).draw(drawn_by(0, 1, 2), (3, 8, 8), torch.tensor(0.7)) for pipe in ("bgcfnc", "color"))
    assert torch.equal(both["color"], alone["color"])


def test_colors_need_one_or_three_channels():
    with pytest.raises(AssertionError, match="color groups need 1 or 3 channels, got 4"):
        built("bgc").draw(drawn_by(0), (2, 4, 8, 8), HALF)
    assert augmented("bg", images(2, 4, 8, 8), 1.0).shape == (2, 4, 8, 8)


def test_augmentation_is_differentiable_twice():
    ada, image_NCHW = built(ALL), images(2, 3, 3, 4)
    drawn = ada.draw(drawn_by(0, 1), image_NCHW.shape, torch.tensor(0.3))
    assert drawn["warped"].tolist() == [False, True]
    image_NCHW.requires_grad_()
    assert torch.autograd.gradcheck(lambda image: ada(image, drawn), image_NCHW)
    assert torch.autograd.gradgradcheck(lambda image: ada(image, drawn).sin(), image_NCHW)


def test_autocast_does_not_coarsen_it():
    image_NCHW = images(4, 3, 16, 16, dtype=torch.float32)
    exact = augmented(ALL, image_NCHW, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augmented(ALL, image_NCHW, 1.0), exact)


def test_nothing_reads_a_value_from_the_device():
    with torch.device("meta"):
        ada = built(ALL)

    def uniform(name: str, *shape: int) -> Tensor:
        return torch.empty(2, *shape, dtype=torch.float64, device="meta")

    drawn = ada.draw(uniform, (2, 3, 8, 8), torch.empty((), device="meta"))
    assert ada(torch.empty(2, 3, 8, 8, device="meta"), drawn).shape == (2, 3, 8, 8)


def test_compiled_augmentation_and_its_gradient_equal_the_eager_ones():
    ada, image_NCHW = built(ALL), images(4, 3, 8, 8, dtype=torch.float32)
    unit_NK, noise_NCHW = drawn_by(*range(4))("ada", 64), drawn_by(*range(4))("ada_noise", 3, 8, 8)

    def loss(image_NCHW: Tensor) -> Tensor:
        def uniform(name: str, *shape: int) -> Tensor:
            return unit_NK[:, : shape[0]] if name == "ada" else noise_NCHW

        return ada(image_NCHW, ada.draw(uniform, image_NCHW.shape, torch.tensor(0.7))).sin().sum()

    results = []
    for run in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        leaf_NCHW = image_NCHW.clone().requires_grad_()
        value = run(leaf_NCHW)
        value.backward()
        results.append((value.detach(), leaf_NCHW.grad))
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-6)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-5)


def test_augmentation_has_nothing_to_save():
    assert built(ALL).state_dict() == {}
    assert list(built(ALL).parameters()) == []


@pytest.mark.parametrize(
    ("p", "sign_mean", "expected"),
    [
        (0.2, 0.7, 0.2 + 0.004),  # above the target: up by 2,000 of 500,000 images
        (0.2, 0.5, 0.2 - 0.004),
        (0.2, 0.6, 0.2),
        (0.001, -1.0, 0.0),
        (0.999, 1.0, 1.0),
    ],
)
def test_the_probability_moves_by_the_images_shown(p: float, sign_mean: float, expected: float):
    before = torch.tensor(p, dtype=torch.float64)
    moved = adapted_probability(before, sign_mean, target=0.6, images=2_000, speed_images=500_000)
    assert moved.item() == pytest.approx(expected, abs=1e-12)
    assert before.item() == p
    same = adapted_probability(before, torch.tensor(sign_mean, dtype=torch.float64), 0.6, 2_000, 500_000)
    assert same.item() == moved.item()
