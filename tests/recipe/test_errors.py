"""Errors that carry their exit status."""

import pytest

from bigtrain.recipe import errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.RecipeError, 2),
        (errors.UsageError, 2),
        (errors.WeightsError, 2),
        (errors.FolderLockedError, 3),
        (errors.CheckpointError, 4),
        (errors.DivergenceError, 5),
        (errors.DataError, 6),
        (errors.NoProgressError, 7),
        (errors.RanksDriftedError, 8),
        (errors.RankLostError, 9),
        (errors.SavesFailedError, 10),
    ],
)
def test_exit_statuses_that_scripts_rely_on(error, status):
    assert error("x").exit_status == status
    assert issubclass(error, errors.BigtrainError)


def test_a_recipe_error_lists_all_its_problems():
    assert errors.RecipeError("one").problems == ("one",)
    both = errors.RecipeError(["one", "two"])
    assert both.problems == ("one", "two")
    assert str(both) == "one\ntwo"
