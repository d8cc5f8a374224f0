"""The order of training: exactly once, the same for everyone, and found at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtrain.data.holdout import Holdout
from bigtrain.data.order import WindowedOrder
from bigtrain.data.shuffle import permutation

SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=9).filter(lambda sizes: sum(sizes) > 0)
SHARES = st.sampled_from([0.0, 0.05, 0.3, 0.5])


def make_order(sizes, window=2, seed=0, share=0.0):
    return WindowedOrder(Holdout(tuple(sizes), share, seed=3), "training", seed, window)


@given(sizes=SIZES, window=st.integers(1, 10), seed=st.integers(0, 2**40), share=SHARES)
def test_every_epoch_holds_every_sample_of_the_part_exactly_once(sizes, window, seed, share):
    holdout = Holdout(tuple(sizes), share, seed=3)
    starts = np.cumsum([0, *sizes])
    kept = np.concatenate([starts[shard] + holdout.rows(shard, "training") for shard in range(len(sizes))])
    order = WindowedOrder(holdout, "training", seed, window)
    assert order.num_samples == len(kept)
    for epoch in range(3):
        places = np.arange(epoch * len(kept), (epoch + 1) * len(kept))
        assert np.array_equal(np.sort(order.samples(places)), kept)


@given(sizes=SIZES, window=st.integers(1, 10), share=SHARES, data=st.data())
def test_any_position_is_found_without_the_ones_before_it(sizes, window, share, data):
    order = make_order(sizes, window, share=share)
    whole = order.samples(np.arange(4 * order.num_samples))
    places = data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20))
    fresh = make_order(sizes, window, share=share)
    assert [fresh.sample(place) for place in places] == whole[places].tolist()
    assert np.array_equal(make_order(sizes, window, share=share).samples(places), whole[places])


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=9), window=st.integers(1, 10))
def test_a_window_reads_no_more_shards_than_it_may(sizes, window):
    order = make_order(sizes, window)
    ends = np.cumsum(sizes)
    shards = np.searchsorted(ends, order.samples(np.arange(order.num_samples)), side="right")
    seen: list[int] = list(dict.fromkeys(shards.tolist()))
    assert len(seen) == len(sizes)
    for first in range(0, len(seen), window):
        inside = np.isin(shards, seen[first : first + window])
        places = np.flatnonzero(inside)
        assert places[-1] - places[0] + 1 == len(places), "shards of one window are read in one stretch"


def test_epochs_and_seeds_differ():
    order, other = make_order([40, 40, 40]), make_order([40, 40, 40], seed=1)
    epochs = [tuple(order.samples(np.arange(120) + 120 * epoch)) for epoch in range(5)]
    assert len({*epochs, tuple(other.samples(np.arange(120)))}) == 6


def test_samples_of_different_shards_are_mixed_inside_a_window():
    shards = make_order([50, 50, 50, 50], window=4).samples(np.arange(200)) // 50
    assert 120 < np.count_nonzero(np.diff(shards)) < 180  # 150 expected of a random order, 3 of none


def test_the_order_is_the_one_that_old_checkpoints_mean():
    # Changing these numbers silently changes what a resumed run reads.
    assert make_order([5, 3, 4], window=2, seed=7).samples(np.arange(14)).tolist() == [
        5,
        7,
        2,
        4,
        0,
        1,
        6,
        3,
        10,
        9,
        11,
        8,
        7,
        8,
    ]
    assert permutation(8, "golden", 1).tolist() == [3, 6, 7, 2, 0, 4, 1, 5]


def test_a_position_far_into_training_costs_one_window(monkeypatch):
    asked: list[int] = []
    plain = Holdout.rows
    monkeypatch.setattr(Holdout, "rows", lambda self, shard, part: asked.append(shard) or plain(self, shard, part))
    order = WindowedOrder(Holdout((1000,) * 1000, 0.1, 0), "training", 0, 8)
    order.samples(np.arange(64) + 7 * order.num_samples + order.num_samples // 2)
    assert len(asked) <= 16  # a batch may lie across two windows


@settings(max_examples=50)
@given(sizes=SIZES, share=SHARES, seed=st.integers(0, 100))
def test_holdout_is_a_seeded_part_of_exactly_its_share(sizes, share, seed):
    holdout = Holdout(tuple(sizes), share, seed)
    assert holdout.counts.sum() == int(sum(sizes) * share + 1e-9)
    for shard, size in enumerate(sizes):
        kept, held = holdout.rows(shard, "training").tolist(), holdout.rows(shard, "held_out").tolist()
        assert sorted(kept + held) == list(range(size)) == holdout.rows(shard, "all").tolist()


def test_holdout_depends_on_its_seed():
    parts = {tuple(Holdout((1000,), 0.05, seed).rows(0, "held_out")) for seed in range(5)}
    assert len(parts) == 5


@pytest.mark.parametrize("count", [1, 2, 3, 17, 256])
def test_a_permutation_holds_each_number_once(count):
    assert sorted(permutation(count, "x", 0).tolist()) == list(range(count))


def test_permutations_of_three_are_all_about_equally_frequent():
    counts = np.unique([permutation(3, "law", seed) for seed in range(3000)], axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert counts.min() > 400  # 500 expected, standard deviation 20
    assert counts.max() < 600
