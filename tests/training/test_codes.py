"""Codes: ways meet their ends and close, sums are sums, and what cannot be mixed is refused."""

import pytest
import torch

from bigtrain.recipe.errors import RecipeError, UsageError
from bigtrain.training.codes import CLASS, LABEL, LATENT, STYLE, Codes, along, between, combined, joined

STYLES = Codes({STYLE: torch.arange(12.0).view(3, 2, 2)})
LATENTS = Codes(
    {LATENT: torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), CLASS: torch.tensor([[0.0], [2.0], [4.0]])}
)
LABELS = Codes({LATENT: torch.eye(2), LABEL: torch.tensor([1, 2])})


def weights(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_styles_and_classes_go_straight_and_latents_round():
    way = between(LATENTS[:1], LATENTS[1:2], weights(0, 0.5, 1))
    half = 0.5**0.5
    assert torch.allclose(way.parts[LATENT], torch.tensor([[1.0, 0.0], [half, half], [0.0, 1.0]]), atol=1e-6)
    assert way.parts[CLASS].flatten().tolist() == [0, 1, 2]
    straight = between(LATENTS[:1], LATENTS[1:2], weights(0.5), "lerp")
    assert straight.parts[LATENT].tolist() == [[0.5, 0.5]]
    assert between(STYLES[:1], STYLES[1:2], weights(0.5)).parts[STYLE].tolist() == [[[2, 3], [4, 5]]]


def test_a_way_through_all_keys_meets_each_and_closes():
    way = along(STYLES, weights(0, 1, 1.5, 2, 2.5))
    found = way.parts[STYLE][:, 0, 0].tolist()
    assert found == [0, 4, 6, 8, 4]  # the last is half-way from the last key back to the first


def test_sums_are_sums_and_keep_the_length_of_latents():
    total = combined(STYLES[:1], STYLES[1:2], STYLES[2:])
    assert total.parts[STYLE].tolist() == [[[4, 5], [6, 7]]]
    latents = Codes({LATENT: torch.tensor([[3.0, 0.0], [0.0, 3.0], [0.0, 6.0]])})
    total = combined(*(latents[[number]] for number in range(3)))
    assert torch.allclose(total.parts[LATENT], torch.tensor([[1.0, 1.0]]) * 8**0.5)


def test_labels_stay_or_are_refused():
    same = Codes({LATENT: torch.eye(2), LABEL: torch.tensor([3, 3])})
    assert between(same[:1], same[1:], weights(0, 0.5)).parts[LABEL].tolist() == [3, 3]
    with pytest.raises(UsageError, match="cannot mix classes"):
        between(LABELS[:1], LABELS[1:], weights(0.5))
    with pytest.raises(UsageError, match="cannot mix classes"):
        combined(LABELS[:1], LABELS[1:], LABELS[:1])
    with pytest.raises(RecipeError, match="did you mean 'slerp'"):
        between(same[:1], same[1:], weights(0.5), "slrep")


def test_codes_are_joined_and_chosen_part_by_part():
    both = joined([LATENTS[:1], LATENTS[2:]])
    assert len(both) == 2
    assert both.parts[CLASS].flatten().tolist() == [0, 4]
    assert LATENTS[[2, 0]].parts[CLASS].flatten().tolist() == [4, 0]
