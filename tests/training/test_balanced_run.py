"""`data.balance` in a run: what it trains on, what its generator is asked for, and what a resume may not change."""

from pathlib import Path

import numpy as np
import pytest

from bigtrain.data.balance import Balance
from bigtrain.data.shards import ShardSet
from bigtrain.engine.checkpoints.checkpoint import read_checkpoint
from bigtrain.engine.checkpoints.files import newest_complete
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.load import load_recipe
from bigtrain.training.schema import Recipe
from tests.rank_pool import RankFailed, run_ranks
from tests.shard_factory import make_shards
from tests.training.toy_runs import play, toy_overrides, toy_run

COUNTS = (30, 14, 4)
SHAPE = ("image={side: 32, channels: 1, num_classes: 3}", "data.holdout=0", "game.fake_labels=empirical")


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits would be balanced already: 48 images of three classes."""
    folder = tmp_path_factory.mktemp("skewed")
    labels = np.random.default_rng(0).permutation(np.repeat(range(3), COUNTS)).tolist()
    make_shards(folder, [16, 16, 16], labels=labels, size=(32, 32))
    return folder


def labels_of_an_epoch(ranks: Ranks, overrides: list[str]) -> tuple[list[int], tuple[int, ...] | None]:
    """Return how many images of each class the first 48 of a run have, and what its game is told."""
    run = toy_run(ranks, overrides)
    labels = [batch.label_N for start in range(0, 48, 16) for batch in run.feed.read(start)]
    run.feed.close()
    return np.bincount(np.concatenate(labels), minlength=3).tolist(), run.facts.label_counts


@pytest.mark.parametrize(("balance", "counts"), [("none", COUNTS), ("class", (16, 16, 16))])
def test_labels_of_generated_images_follow_the_law_of_the_real_ones(
    skewed: Path, tmp_path: Path, balance: str, counts: tuple[int, ...]
) -> None:
    overrides = toy_overrides(skewed, tmp_path, *SHAPE, f"data.balance={balance}", "data.allow_sorted=true")
    (found,) = run_ranks(1, labels_of_an_epoch, overrides)
    assert found == (list(counts), counts)


def test_a_balanced_run_goes_on_with_other_ranks_and_keeps_its_balance(skewed: Path, tmp_path: Path) -> None:
    overrides = toy_overrides(skewed, tmp_path, *SHAPE, "data.balance=class", "data.allow_sorted=true")
    run_ranks(1, play, overrides, 2)
    with pytest.raises(RankFailed, match=r"data.balance: 'temperature\(2\)' differs from 'class'"):
        run_ranks(1, play, [*overrides, "data.balance=temperature(2)"])
    assert run_ranks(2, play, overrides)[0].steps == 10
    checkpoint = read_checkpoint(newest_complete(tmp_path / "checkpoints"))
    places = ShardSet.open(skewed).label_places(Balance("class"))
    assert checkpoint.record["label_counts"] == places.tolist() == [16, 16, 16]


def test_a_balance_without_classes_is_refused_with_the_recipe() -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "photos-stylegan2.yaml"
    with pytest.raises(RecipeError, match=r"data.balance: class needs classes, but image.num_classes is 0; delete"):
        load_recipe(recipe, ["data.balance=class"], Recipe)
