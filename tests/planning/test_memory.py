"""Memory by engine, from two players of 1,000 and 3,000 numbers."""

import pytest

from bigtrain.games.base import Turn
from bigtrain.planning.measure import Measured, NetworkSize, TurnCost
from bigtrain.planning.memory import GIB, memory
from bigtrain.recipe.errors import RecipeError

ACTIVATIONS = {"generator": 50_000, "discriminator": 49_000}
MEASURED = Measured(
    micro_images=4,
    networks={"generator": NetworkSize(1_000, 4_400), "discriminator": NetworkSize(3_000, 12_000)},
    players={"generator": ("generator",), "discriminator": ("discriminator",)},
    averaged=("generator",),
    turns=tuple(TurnCost(Turn(player), 1.0, 10, 0, peak) for player, peak in ACTIVATIONS.items()),
)


@pytest.mark.parametrize(
    ("engine", "world", "gradients", "optimizer", "player"),
    [
        ("plain", 1, 12_000, 32_000, "discriminator"),  # 12,000 + 49,000 is more than 4,000 + 50,000
        ("ddp", 8, 16_000, 32_000, "generator"),  # buckets of both are kept, so the larger activations count
        ("zero1", 8, 12_000, 6_000, "discriminator"),  # two moments and a copy of the weights, 3 x 16,000 / 8
        (
            "zero2",
            8,
            500,
            6_000,
            "generator",
        ),  # 500 + 50,000 is at its peak, equal to 1,500 + 49,000: the first of both
        ("zero2", 3, 4_000, 16_000, "discriminator"),  # 4,000 + 49,000 is more than 1,334 + 50,000
    ],
)
def test_what_an_engine_deals_out_is_divided_by_the_world(engine, world, gradients, optimizer, player):
    held = memory(MEASURED, engine, world, num_averages=2)
    assert (held.weights, held.averages) == (16_400, 8_800)
    assert (held.gradients, held.optimizer) == (gradients, optimizer)
    assert held.turn == f"{player}/main"
    assert held.activations == ACTIVATIONS[player]
    assert held.tensors == 16_400 + 8_800 + gradients + optimizer + ACTIVATIONS[player]


def test_the_reserve_is_two_gib_and_a_fifth_of_the_activations():
    held = memory(MEASURED, "ddp", 1, 1)
    assert held.with_reserve == held.tensors + 2 * GIB + 10_000


def test_an_odd_share_is_rounded_up():
    assert memory(MEASURED, "zero1", 7, 1).optimizer == 4 * 1_715  # 12,000 / 7 = 1,714.3 numbers


def test_an_engine_without_a_model_is_named():
    with pytest.raises(RecipeError, match="'zero3' is not a known engine.*plain, zero1, zero2"):
        memory(MEASURED, "zero3", 2, 1)
