"""Schedules are pure functions of images seen."""

import pytest
from pydantic import TypeAdapter, ValidationError

from bigtrain.recipe.schedule import SHAPES, Schedule

schedule = TypeAdapter(Schedule).validate_python


@pytest.mark.parametrize("value", [2e-4, "2e-4", {"constant": 2e-4}, {"constant": "2e-4"}])
def test_a_number_is_a_constant(value):
    assert schedule(value).at(0) == schedule(value).at(10**9) == 2e-4


def test_a_cosine_falls_from_the_first_value_to_the_second_and_stays():
    cosine = schedule({"cosine": [1.0, 0.0], "over": "1k"})
    assert cosine.at(0) == 1.0
    assert cosine.at(500) == pytest.approx(0.5)
    assert cosine.at(250) == pytest.approx(0.5 + 0.5 * 0.5**0.5)
    assert cosine.at(1_000) == cosine.at(10**9) == 0.0


def test_shapes_are_the_keys_that_name_a_schedule():
    assert {"constant", "cosine"} == SHAPES


@pytest.mark.parametrize(
    "value", [True, None, [1, 2], {"cosine": [1, 2]}, {"cosine": [1, 2], "over": 0}, {"linear": 3}, "fast"]
)
def test_what_is_no_schedule_is_refused(value):
    with pytest.raises(ValidationError):
        schedule(value)
