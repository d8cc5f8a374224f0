"""Hours from FLOP, a peak and a utilisation."""

import pytest

from bigtrain.games.base import Turn
from bigtrain.planning.duration import Duration, duration, seconds
from bigtrain.planning.gpus import GPUS, Speed
from bigtrain.planning.measure import Measured, TurnCost
from bigtrain.recipe.errors import RecipeError, UsageError
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.load import load_recipe
from bigtrain.training.schema import Recipe

MAIN, R1 = Turn("discriminator"), Turn("discriminator", "r1", "same", True, True)
WORDS = ["batch_images=64", "batchnorm_images=16", "total_images=6400", "precision=bf16"]


def recipe(*more):
    return load_recipe("bigtrain:digits-biggan", [*WORDS, *more], Recipe)


def test_a_step_takes_its_turns_flop_over_the_rate_of_each_number_format():
    """Two micro-batches a turn; of 11 TFLOP 10 in bf16 at 1/4 of 989 and 1 in fp32 at 1/2 of 67, and every 16th step
    8 TFLOP in fp32."""
    main, r1 = TurnCost(MAIN, 1.0, 11 * 10**12, 10**13, 0), TurnCost(R1, 1 / 16, 8 * 10**12, 0, 0)
    measured = Measured(16, {}, {}, (), (main, r1))
    found = duration(measured, recipe(), Layout(0, 2, 16, 64), Speed("h100"))
    assert found.step_s == pytest.approx(2 * (10 / (0.25 * 989) + (1 + 8 / 16) / (0.5 * 67)))
    assert found.hours == pytest.approx(100 * found.step_s / 3600)
    assert found.images_per_s == pytest.approx(64 / found.step_s)


def test_full_precision_is_tensorfloat32_where_the_recipe_lets_it_be():
    speed = Speed("a100", mfu=1.0)
    assert seconds(312 * 10**12, 312 * 10**12, recipe(), speed) == pytest.approx(1.0)
    assert seconds(39 * 10**12, 0, recipe(), speed) == pytest.approx(2.0)  # 19.5 TFLOP/s
    assert seconds(39 * 10**12, 0, recipe("tf32=true"), speed) == pytest.approx(0.25)  # 156 TFLOP/s


def test_stated_numbers_replace_assumed_ones():
    assert Speed("v100", mfu=0.5).flop_per_s("fp16") == 62.5e12
    assert Speed("v100", peak_tflops=10, mfu=0.1).flop_per_s("bf16") == pytest.approx(1e12)


def test_a_gpu_without_units_for_a_format_or_without_a_name_is_told():
    with pytest.raises(UsageError, match="--gpu v100 has no units for bf16; choose another precision of .*fp16"):
        Speed("v100").flop_per_s("bf16")
    with pytest.raises(RecipeError, match="'h10' is not a known GPU; did you mean 'h100'"):
        Speed("h10").flop_per_s("bf16")


def test_every_gpu_says_where_its_numbers_are_from():
    assert all("data sheet" in GPUS.get(name).source and GPUS.get(name).peak_tflops["fp32"] > 0 for name in GPUS)


@pytest.mark.parametrize(("step_s", "limit_s", "jobs"), [(1.0, 100, 1), (1.0, 99, 2), (1.0, 50, 2), (0.001, 60, 1)])
def test_jobs_are_the_hours_over_the_limit_rounded_up(step_s, limit_s, jobs):
    assert Duration(step_s, 100, 32).starts(limit_s) == jobs
