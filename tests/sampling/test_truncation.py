"""Truncation laws against their moments, quantiles and bounds."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from pydantic import BaseModel, ValidationError

from bigtrain.draws import Draws
from bigtrain.recipe.errors import RecipeError
from bigtrain.sampling.truncation import TRUNCATION_LAWS, Truncation, TruncationText, sample_draws

NUM = 400_000
LAWS = ["none", "resample:0.5", "resample:2", "scale:0.5", "std:0.5", "clamp:0.5", "psi:0.7", "psi:0.5:8"]


def draw(text: str, num: int = NUM, dims: int = 1) -> torch.Tensor:
    return Truncation.parse(text).apply(sample_draws(seed=3, index_N=torch.arange(num)), dims)


def normal_cdf(value: float) -> float:
    return 0.5 * (1 + math.erf(value / math.sqrt(2)))


def within_cdf(bound: float) -> Callable[[float], float]:
    inside = normal_cdf(bound) - normal_cdf(-bound)
    return lambda value: (normal_cdf(value) - normal_cdf(-bound)) / inside


def within_variance(bound: float) -> float:
    """Variance of N(0, 1) conditioned on [-b, b]: 1 - 2 b phi(b) / (2 Phi(b) - 1)."""
    density = math.exp(-(bound**2) / 2) / math.sqrt(2 * math.pi)
    return 1 - 2 * bound * density / (2 * normal_cdf(bound) - 1)


CDFS: dict[str, Callable[[float], float]] = {
    "none": normal_cdf,
    "resample:0.5": within_cdf(0.5),
    "resample:2": within_cdf(2.0),
    "scale:0.5": lambda value: within_cdf(2.0)(value / 0.5),
    "std:0.5": lambda value: normal_cdf(value / 0.5),
    "clamp:0.5": normal_cdf,
    "psi:0.7": normal_cdf,
    "psi:0.5:8": normal_cdf,
}
VARIANCES = {
    "none": 1.0,
    "resample:0.5": within_variance(0.5),
    "resample:2": within_variance(2.0),
    "scale:0.5": 0.25 * within_variance(2.0),
    "std:0.5": 0.25,
    # E[z^2; |z| < t] + t^2 P(|z| > t)
    "clamp:0.5": (2 * normal_cdf(0.5) - 1) * within_variance(0.5) + 0.25 * 2 * normal_cdf(-0.5),
    "psi:0.7": 1.0,
    "psi:0.5:8": 1.0,
}


@pytest.mark.parametrize("text", LAWS)
def test_share_below_a_point_follows_the_law(text: str):
    latent = draw(text)[:, 0].double()
    for point in (-0.45, -0.2, 0.0, 0.1, 0.3, 0.49):
        expected = CDFS[text](point)
        noise = math.sqrt(expected * (1 - expected) / NUM)
        assert (latent <= point).double().mean().item() == pytest.approx(expected, abs=5 * noise), point


@pytest.mark.parametrize("text", LAWS)
def test_mean_and_variance_follow_the_law(text: str):
    latent = draw(text)[:, 0].double()
    assert latent.mean().item() == pytest.approx(0, abs=5 * math.sqrt(VARIANCES[text] / NUM))
    assert latent.var().item() == pytest.approx(VARIANCES[text], rel=5 * math.sqrt(2 / NUM))


def test_variance_of_resampling_is_the_textbook_number():
    assert within_variance(2.0) == pytest.approx(0.7737413, abs=1e-7)


@pytest.mark.parametrize("threshold", [0.04, 0.1, 0.5, 1.0, 2.0])
def test_bounds_hold_exactly(threshold: float):
    bound = torch.tensor(threshold, dtype=torch.float32)
    for law, limit in (("resample", bound), ("clamp", bound), ("scale", 2 * bound)):
        latent = draw(f"{law}:{threshold}", num=50_000)
        assert latent.dtype == torch.float32
        assert latent.abs().max() <= limit, law
        assert latent.abs().max() > 0.999 * limit, law


def test_clamping_piles_up_at_the_ends_and_resampling_does_not():
    outside = 2 * normal_cdf(-0.5)
    piled = (draw("clamp:0.5").abs() == 0.5).double().mean().item()
    assert piled == pytest.approx(outside, abs=5 * math.sqrt(outside / NUM))
    assert (draw("resample:0.5").abs() == 0.5).double().mean().item() < 1e-4


def test_std_and_none_reach_past_any_clamp():
    assert draw("none").abs().max() > 4
    assert draw("std:0.5").abs().max() > 2


def test_components_are_independent():
    correlation = torch.corrcoef(draw("resample:1", num=40_000, dims=6).double().T) - torch.eye(6)
    assert correlation.abs().max() < 5 / math.sqrt(40_000)


@pytest.mark.parametrize("text", LAWS)
def test_a_sample_depends_on_seed_and_number_alone(text: str):
    truncation = Truncation.parse(text)
    whole = truncation.apply(sample_draws(7, torch.arange(10)), 5)
    picked = truncation.apply(sample_draws(7, torch.tensor([8, 2])), 5)
    assert whole.shape == (10, 5)
    assert torch.equal(picked, whole[[8, 2]])
    assert not torch.equal(truncation.apply(sample_draws(8, torch.arange(10)), 5), whole)


def test_samples_never_repeat_training_latents():
    index_N = torch.arange(4)
    sampled = sample_draws(0, index_N).uniform("latent", 3)
    trained = Draws(seed=0, salt=0, step=0, turn=0, index_N=index_N).uniform("latent", 3)
    assert not torch.isclose(sampled, trained).any()


def test_loosening_the_threshold_moves_a_sample_outwards_towards_the_untruncated_one():
    free = draw("none", num=2000)
    tight, loose, looser = (draw(f"resample:{threshold}", num=2000) for threshold in (0.5, 1, 8))
    assert (tight.abs() <= loose.abs()).all()
    assert (loose.abs() <= free.abs()).all()
    assert torch.allclose(looser, free, atol=1e-6)
    assert torch.allclose(draw("clamp:8", num=2000), free, atol=1e-6)
    assert torch.allclose(draw("std:1", num=2000), free, atol=1e-6)


def test_extreme_uniform_numbers_give_finite_latents():
    for law in TRUNCATION_LAWS.names():
        ends = TRUNCATION_LAWS.get(law)(torch.tensor([0.0, 2.0**-54, 1 - 2.0**-53, 1.0], dtype=torch.float64), 0.5)
        assert torch.isfinite(ends).all(), law


@pytest.mark.parametrize("text", ["psi:0.7", "psi:0", "psi:-1", "psi:1.5:3"])
def test_psi_leaves_the_latent_as_it_is(text: str):
    assert torch.equal(draw(text, num=500, dims=3), draw("none", num=500, dims=3))


@pytest.mark.parametrize(
    ("text", "psi", "cutoff"),
    [
        ("psi:0.7", 0.7, None),
        ("psi:0.7:8", 0.7, 8),
        ("psi:0", 0.0, None),
        ("psi:-1:2", -1.0, 2),
        ("psi:2", 2.0, None),
        ("psi:1e-1:1", 0.1, 1),
        ("none", None, None),
        ("resample:0.5", None, None),
    ],
)
def test_psi_and_cutoff_are_told_to_whoever_maps_latents_to_styles(text: str, psi: float | None, cutoff: int | None):
    truncation = Truncation.parse(text)
    assert (truncation.psi, truncation.cutoff) == (psi, cutoff)


@pytest.mark.parametrize("text", [*LAWS, "psi:0", "psi:-0.5:1", "std:0.30000000000000004", "clamp:1e-07", "psi:1:18"])
def test_text_survives_a_round_trip(text: str):
    truncation = Truncation.parse(text)
    assert str(truncation) == text
    assert Truncation.parse(str(truncation)) == truncation


def test_random_thresholds_survive_a_round_trip():
    for threshold in torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tolist():
        for truncation in (Truncation("std", threshold), Truncation("psi", -threshold, 3)):
            assert Truncation.parse(str(truncation)) == truncation


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resampel:0.5", "did you mean 'resample'"),
        ("resample", "needs a finite threshold above 0, got None"),
        ("resample:", "'' is not a number"),
        ("resample:half", "'half' is not a number"),
        ("scale:0", "needs a finite threshold above 0, got 0.0"),
        ("clamp:-1", "got -1.0"),
        ("std:inf", "got inf"),
        ("std:nan", "got nan"),
        ("none:0.5", "takes no threshold"),
        ("", "is not a known truncation"),
        ("psi", "needs a psi from -2 to 2, got None; write for example 'psi:0.7'"),
        ("psi:2.1", "got 2.1"),
        ("psi:-3", "got -3.0"),
        ("psi:nan", "got nan"),
        ("psi:0.7:0", "at least 1 style layer, got 0; write 'psi:0.7' for all"),
        ("psi:0.7:-2", "got -2"),
        ("psi:0.7:all", "'all' is not a whole number of style layers"),
        ("psi:0.7:1.5", "'1.5' is not a whole number"),
        ("psi:0.7:8:2", "has 3 numbers"),
        ("resample:0.5:8", "takes no number of style layers, got 8; write 'resample:0.5', or 'psi:0.7:8'"),
    ],
)
def test_bad_text_is_refused_with_the_reason(text: str, words: str):
    with pytest.raises(RecipeError, match="truncation") as caught:
        Truncation.parse(text)
    assert words in str(caught.value)


class Recipe(BaseModel):
    truncation: TruncationText = Truncation()


def test_recipe_field_reads_and_writes_text():
    recipe = Recipe.model_validate({"truncation": "resample:0.5"})
    assert recipe.truncation == Truncation("resample", 0.5)
    assert recipe.model_dump(mode="json") == {"truncation": "resample:0.5"}
    assert Recipe().model_dump(mode="json") == {"truncation": "none"}
    assert Recipe.model_validate({"truncation": "psi:0.7:8"}).truncation == Truncation("psi", 0.7, 8)
    assert Recipe(truncation=Truncation("psi", 0.7, 8)).model_dump(mode="json") == {"truncation": "psi:0.7:8"}
    assert Recipe.model_json_schema()["properties"]["truncation"]["type"] == "string"
    with pytest.raises(ValidationError, match="did you mean 'resample'"):
        Recipe.model_validate({"truncation": "resampel:0.5"})
    with pytest.raises(ValidationError):
        Recipe.model_validate({"truncation": 0.5})


def test_the_schema_takes_what_is_read_and_refuses_wrong_forms():
    pattern = re.compile(Recipe.model_json_schema()["properties"]["truncation"]["pattern"])
    assert all(pattern.search(text) for text in [*LAWS, "psi:-1.5", "psi:1e-3:12", "std:1e+0"])
    assert not any(pattern.search(text) for text in ["resample", "resample:0.5:8", "psi:0.7:", "psi:0.7:1.5"])
