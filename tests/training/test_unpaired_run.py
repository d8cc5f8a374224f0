"""A run on two unpaired sets takes the same samples of both whatever its ranks and stops, and notices another set b."""

from pathlib import Path

import pytest

from bigtrain.data.settings import DataSettings
from bigtrain.engine.ranks import Ranks
from bigtrain.games.noise_to_image import NoiseToImageSettings
from bigtrain.training.loop import train
from tests.rank_pool import RankFailed, run_ranks
from tests.shard_factory import make_shards
from tests.training.toy_runs import StopAfter, toy_overrides, toy_run

Taken = dict[int, list[list[list[int]]]]
SIZE = (32, 32)


def play_two(ranks: Ranks, overrides: list[str], stop_after_steps: int | None = None) -> Taken:
    """Train a game that says to take two sets; return the numbers of both that this rank was given at each position."""
    NoiseToImageSettings.takes = "unpaired"  # in this forked process
    run = toy_run(ranks, overrides)
    taken: Taken = {}
    read = run.feed.read

    def watched(position, *more):  # type: ignore[no-untyped-def]
        batches = read(position, *more)
        taken[position] = [[batch.sample_N.tolist(), batch.sample_b_N.tolist()] for batch in batches]
        return batches

    run.feed.read = watched  # type: ignore[method-assign]
    if stop_after_steps is not None and ranks.rank == ranks.world - 1:
        run.hooks.append(StopAfter(stop_after_steps))
    train(run)
    run.close()
    return taken


def pairs_at(parts: list[Taken]) -> dict[int, list[tuple[int, int]]]:
    """Join what all ranks were given; one that is asked to stop may have given way before a step that others read."""
    positions = sorted(set.intersection(*(set(part) for part in parts)))
    micro = {position: [each for part in parts for each in part[position]] for position in positions}
    return {
        position: sorted(pair for a, b in found for pair in zip(a, b, strict=True)) for position, found in micro.items()
    }


@pytest.fixture
def two_sets(tmp_path: Path) -> tuple[Path, Path]:
    for name, sizes in (("a", [20, 9]), ("b", [7, 4, 13, 30])):
        make_shards(tmp_path / name, sizes, size=SIZE)
    return tmp_path / "a", tmp_path / "b"


def test_ranks_stop_and_others_go_on_with_the_same_samples_of_both(two_sets: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two_sets
    image = "image={side: 32, channels: 1, num_classes: 3}"
    runs = [toy_overrides(a, tmp_path / name, image, f"data.shards_b={b}") for name in ("whole", "stopped")]
    whole = pairs_at(run_ranks(1, play_two, runs[0]))
    before = pairs_at(run_ranks(2, play_two, runs[1], 4))
    after = pairs_at(run_ranks(1, play_two, runs[1]))
    assert min(after) == max(before) + 16
    assert before | after == whole
    data = DataSettings.model_validate({"shards": str(a), "shards_b": str(b), "holdout": "5%"})
    order = data.build(0).order(0, data.shuffle_window_shards)
    for position, pairs in whole.items():
        assert pairs == sorted(map(tuple, order.samples(range(position, position + 16)).tolist()))
    other = [*runs[1], f"data.shards_b={a}", "total_images=320"]
    with pytest.raises(RankFailed, match="holds other images than those of"):
        run_ranks(1, play_two, other)
