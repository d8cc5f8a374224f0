"""Draws are functions of facts: equal for any dealing of the images, different for any other fact, and of the right
law."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtrain.draws import Draws, seed_of
from bigtrain.draws.counter import _mix

NUM = 20_000


def draws(index_N: torch.Tensor | None = None, **facts: int) -> Draws:
    given_facts = {"seed": 0, "salt": 0, "step": 3, "turn": 1} | facts
    return Draws(**given_facts, index_N=torch.arange(NUM) if index_N is None else index_N)


@pytest.mark.parametrize("key", [0, 1, -1, 2**63 - 1, -(2**63), 0x0123456789ABCDEF])
def test_mix_is_the_published_function(key: int) -> None:
    word = key % 2**64  # SplitMix64's finaliser in plain integers
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
    word ^= word >> 31
    assert _mix(torch.tensor([key])).item() % 2**64 == word


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20, unique=True), st.integers(1, 9))
def test_an_image_draws_the_same_in_any_company(index: list[int], count: int) -> None:
    together = draws(torch.tensor(index)).normal("latent", count)
    alone = torch.cat([draws(torch.tensor([number])).normal("latent", count) for number in index])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("other", [{"seed": 1}, {"salt": 1}, {"step": 4}, {"turn": 2}])
def test_every_fact_changes_the_draws(other: dict[str, int]) -> None:
    index_N = torch.arange(64)
    assert not torch.isclose(draws(index_N).normal("a", 2), draws(index_N, **other).normal("a", 2)).any()


def test_streams_are_independent() -> None:
    first, second = draws().normal("latent", 1)[:, 0], draws().normal("label", 1)[:, 0]
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 5 / math.sqrt(NUM)


def test_normal_has_the_moments_of_a_standard_normal() -> None:
    value = draws().normal("latent", 5).double()
    bound = 5 / math.sqrt(NUM)
    assert value.mean(0).abs().max() < bound
    assert (value.square().mean(0) - 1).abs().max() < bound * math.sqrt(2)
    assert (value.pow(4).mean(0) - 3).abs().max() < bound * math.sqrt(96)
    gram = value.T @ value / NUM - torch.eye(
        5
    )  # components of one image, and cosine and sine of one angle, are independent
    assert gram.abs().max() < bound * math.sqrt(2)


def test_neighbouring_images_are_independent() -> None:
    value = draws().normal("latent", 1)[:, 0].double()
    assert abs((value[1:] * value[:-1]).mean().item()) < 5 / math.sqrt(NUM)


def test_uniform_is_open_and_flat() -> None:
    value = draws().uniform("flip")
    assert value.shape == (NUM,)
    assert value.min() > 0
    assert value.max() < 1
    counts = torch.histc(value, bins=20, min=0, max=1)
    assert ((counts - NUM / 20).square() / (NUM / 20)).sum() < 50  # chi-square, 19 degrees of freedom: p < 1e-4 above


def test_integers_and_categories_have_their_frequencies() -> None:
    assert torch.bincount(draws().integers("label", 7)).max() < NUM / 7 + 5 * math.sqrt(NUM / 7)
    found = torch.bincount(draws().categorical("label", torch.tensor([3.0, 0.0, 1.0])), minlength=3)
    assert found[1] == 0
    assert abs(found[0].item() / NUM - 0.75) < 5 * math.sqrt(0.75 * 0.25 / NUM)


def test_seed_of_depends_on_the_order_and_the_cut_of_its_facts() -> None:
    assert len({seed_of(1, 23), seed_of(12, 3), seed_of(23, 1), seed_of("1", "2", "3")}) == 4
    assert 0 <= seed_of("anything") < 2**63
