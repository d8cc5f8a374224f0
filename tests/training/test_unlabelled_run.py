"""Shards with unlabelled samples reach the games that take them, and no other."""

from pathlib import Path

import pytest

from bigtrain.games.noise_to_image import NoiseToImageSettings
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.load import load_recipe
from bigtrain.training.build import facts_of, open_shards
from bigtrain.training.schema import Recipe
from tests.shard_factory import make_shards
from tests.training.toy_runs import RECIPE, toy_overrides

LABELS = [-1 if number % 4 == 3 else number % 3 for number in range(48)]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    make_shards(tmp_path / "torn", [16, 16, 16], labels=LABELS, size=(32, 32))
    more = ("image={side: 32, channels: 1, num_classes: 3}", "data.allow_sorted=true", "data.balance=class")
    return load_recipe(RECIPE, toy_overrides(tmp_path / "torn", tmp_path / "run", *more), Recipe)


def test_a_game_that_needs_a_label_of_each_image_refuses_them_before_training(recipe: Recipe) -> None:
    words = r"12 of 48 samples of .*torn have no label, and the game noise_to_image needs one of each; remove those"
    with pytest.raises(DataError, match=words):
        open_shards(recipe)


def test_a_game_that_says_so_gets_them(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoiseToImageSettings, "takes_unlabelled", True)
    shards = open_shards(recipe)
    counts = facts_of(recipe, shards).label_counts
    assert shards.num_unlabelled + sum(counts or ()) == shards.num_samples == 46  # 5% are held out
    assert set(shards.load(shards.numbers()).label_N.tolist()) == {-1, 0, 1, 2}


def test_of_two_sets_the_second_one_is_asked_for_labels_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoiseToImageSettings, "takes", "unpaired")
    make_shards(tmp_path / "whole", [16], size=(32, 32))
    make_shards(tmp_path / "torn", [48], labels=LABELS, size=(32, 32))
    more = ("image={side: 32, channels: 1, num_classes: 3}", "data.allow_sorted=true", f"data.shards_b={tmp_path}/torn")
    two = load_recipe(RECIPE, toy_overrides(tmp_path / "whole", tmp_path / "run", *more), Recipe)
    with pytest.raises(DataError, match=r"data.shards_b: 12 of 48 samples of \S*torn have no label"):
        open_shards(two)
    monkeypatch.setattr(NoiseToImageSettings, "takes_unlabelled", True)
    assert open_shards(two).sample_kind == "unpaired"
