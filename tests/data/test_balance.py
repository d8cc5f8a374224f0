"""Balanced classes: exact counts in every epoch, every sample in its turn, and a resume that stays a seek."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigtrain.data.balance import NO_BALANCE, Balance
from bigtrain.data.feed import Feed
from bigtrain.data.holdout import Holdout
from bigtrain.data.index import histogram
from bigtrain.data.occurrences import Occurrences, golden_step
from bigtrain.data.order import Balanced, WindowedOrder
from bigtrain.data.settings import DataSettings
from bigtrain.data.shards import ShardSet
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.layout import Layout
from tests.shard_factory import make_shards

LAWS = st.sampled_from(["none", "class", "temperature(1)", "temperature(2)", "temperature(5.5)", "temperature(1e6)"])
LABELS = st.lists(st.lists(st.sampled_from([-1, 0, 0, 0, 0, 1, 1, 2, 7]), max_size=14), min_size=1, max_size=7).filter(
    lambda shards: sum(map(len, shards)) > 0
)
SHARES = st.sampled_from([0.0, 0.3])


def make_order(labels, balance, window=2, seed=0, share=0.0):
    """An order over shards whose samples have these labels; counts the shards whose labels it asks for."""
    holdout = Holdout(tuple(map(len, labels)), share, seed=3)
    parts = [np.array(each, dtype=np.int64)[holdout.rows(shard, "training")] for shard, each in enumerate(labels)]
    if not sum(map(len, parts)):
        return None
    asked = []
    occurrences = Occurrences([histogram(part) for part in parts], Balance.parse(balance), seed)
    read = lambda shard: asked.append(shard) or np.array(labels[shard], dtype=np.int64)  # noqa: E731
    order = WindowedOrder(holdout, "training", seed, window, Balanced(holdout, "training", occurrences, read))
    order.asked, order.occurrences = asked, occurrences
    return order


@pytest.mark.parametrize(
    ("balance", "sizes", "places"),
    [
        ("class", [1, 4, 16], [7, 7, 7]),
        ("class", [5, 3, 3], [4, 4, 3]),  # 11/3 each: the smaller labels first
        ("temperature(2)", [1, 4, 16], [3, 6, 12]),  # roots 1, 2, 4 of 7 parts
        ("temperature(1)", [1, 4, 16], [1, 4, 16]),
        ("temperature(1e9)", [1, 4, 16], [7, 7, 7]),
        ("temperature(0.5)", [1, 2, 4], [1, 1, 5]),  # squares 1, 4, 16 of 21 parts: 1/3, 4/3, 16/3
        ("temperature(0.5)", [1, 2, 7], [0, 1, 9]),  # squares 1, 4, 49 of 54 parts: 0.19, 0.74, 9.07
        ("none", [1, 4, 16], [1, 4, 16]),
    ],
)
def test_places_of_classes_are_those_reckoned_by_hand(balance, sizes, places):
    label_K, size_K = np.arange(len(sizes)), np.array(sizes)
    if 0 in places:
        with pytest.raises(DataError, match="leaves class 0, which has 1 of 10 samples, without a place in any epoch"):
            Balance.parse(balance).places(label_K, size_K)
    else:
        assert Balance.parse(balance).places(label_K, size_K).tolist() == places


def test_samples_without_a_label_keep_their_own_share():
    label_K, size_K = np.array([-1, 0, 1]), np.array([6, 1, 5])
    assert Balance.parse("class").places(label_K, size_K).tolist() == [6, 3, 3]
    assert Balance.parse("class").places(np.array([-1]), np.array([6])).tolist() == [6]


def test_three_samples_share_two_places_in_turn_and_a_lone_one_takes_both_of_its_class():
    # n = 4, so 2 places a class. Of class 1 (n_k 3, c_k 2): floor((2e + 2 + j)/3) - floor((2e + j)/3) over e = 0, 1, 2
    # is 0, 1, 1 for j = 0; 1, 0, 1 for j = 1; 1, 1, 0 for j = 2; and which sample has which j is drawn.
    order = make_order([[1, 0], [1, 1]], "class")
    epochs = order.samples(np.arange(12)).reshape(3, 4)
    times_NE = np.array([[np.count_nonzero(epoch == number) for epoch in epochs] for number in range(4)])
    assert times_NE[1].tolist() == [2, 2, 2]
    assert {tuple(row) for row in times_NE[[0, 2, 3]].tolist()} == {(0, 1, 1), (1, 0, 1), (1, 1, 0)}


@settings(max_examples=150, deadline=None)
@given(labels=LABELS, balance=LAWS, window=st.integers(1, 8), seed=st.integers(0, 2**40), share=SHARES)
def test_every_epoch_has_the_exact_counts_and_every_sample_its_floor_or_one_more(labels, balance, window, seed, share):
    order = make_order(labels, balance, window, seed, share)
    if order is None:
        return
    flat = np.concatenate([np.array(each, dtype=np.int64) for each in labels])
    starts = np.cumsum([0, *map(len, labels)])
    holdout = Holdout(tuple(map(len, labels)), share, seed=3)
    kept = np.concatenate([starts[shard] + holdout.rows(shard, "training") for shard in range(len(labels))])
    sizes = Counter(flat[kept].tolist())
    label_K = np.array(sorted(sizes))
    places = Balance.parse(balance).places(label_K, np.array([sizes[label] for label in label_K.tolist()]))
    assert places.sum() == order.num_samples == len(kept)
    for epoch in range(4):
        found = order.samples(np.arange(epoch * len(kept), (epoch + 1) * len(kept)))
        assert set(found.tolist()) <= set(kept.tolist())
        for label, count in zip(label_K.tolist(), places.tolist(), strict=True):
            times = np.array([np.count_nonzero(found == number) for number in kept[flat[kept] == label]])
            assert times.sum() == count
            assert set(times.tolist()) <= {count // len(times), -(-count // len(times))}


@settings(max_examples=30, deadline=None)
@given(labels=LABELS, balance=LAWS, seed=st.integers(0, 100))
def test_over_enough_epochs_all_samples_of_a_class_come_equally_often(labels, balance, seed):
    order = make_order(labels, balance, seed=seed)
    flat = np.concatenate([np.array(each, dtype=np.int64) for each in labels])
    sizes = Counter(flat.tolist())
    places = dict(zip(sorted(sizes), order.occurrences.places_K.tolist(), strict=True))
    period = math.lcm(*(sizes[label] // math.gcd(sizes[label], places[label]) for label in sizes))
    if period > 60:
        return
    times_N = np.bincount(order.samples(np.arange(period * len(flat))), minlength=len(flat))
    for label in sizes:
        assert set(times_N[flat == label].tolist()) == {period * places[label] // sizes[label]}


@settings(max_examples=80, deadline=None)
@given(labels=LABELS, balance=LAWS, window=st.integers(1, 8), share=SHARES, data=st.data())
def test_any_position_is_found_without_the_ones_before_it(labels, balance, window, share, data):
    order = make_order(labels, balance, window, share=share)
    if order is None:
        return
    whole = order.samples(np.arange(4 * order.num_samples))
    places = data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20))
    fresh = make_order(labels, balance, window, share=share)
    assert [fresh.sample(place) for place in places] == whole[places].tolist()


@settings(max_examples=80, deadline=None)
@given(labels=LABELS, balance=LAWS, window=st.integers(1, 8), data=st.data())
def test_windows_hold_the_shards_that_are_read_in_them(labels, balance, window, data):
    order, ends = make_order(labels, balance, window), np.cumsum([*map(len, labels)])
    position = data.draw(st.integers(0, 3 * order.num_samples))
    windows = order.windows_from(position)
    present = next(windows)
    for at in range(position, position + order.num_samples):
        shard = int(np.searchsorted(ends, order.sample(at), side="right"))
        while shard not in present:
            present = next(windows)
        assert len(present) <= window


@given(labels=LABELS, window=st.integers(1, 8))
def test_balances_that_change_no_count_change_nothing(labels, window):
    plain = WindowedOrder(Holdout(tuple(map(len, labels)), 0.0, 3), "training", 0, window)
    positions = np.arange(2 * plain.num_samples)
    for balance in ("temperature(1)", "none"):
        assert make_order(labels, balance, window).samples(positions).tolist() == plain.samples(positions).tolist()


def test_what_an_epoch_leaves_out_lies_evenly_among_the_shards():
    labels = [[0] * 90 + [1] * 10 for _ in range(50)]
    occurrences = make_order(labels, "class").occurrences
    assert occurrences.places_K.tolist() == [2500, 2500]  # 50 of 90 and 5 times 10 a shard
    for epoch in range(5):
        places_S = occurrences.shard_places(epoch)
        assert places_S.sum() == 5000
        assert abs(places_S - 100).max() <= 3


def test_shard_places_do_not_depend_on_how_many_ranks_are_counted_at_once(monkeypatch):
    labels = [[shard % 3] * 5 + [3] * (shard % 4) for shard in range(9)]
    whole = make_order(labels, "class").occurrences.shard_places(3)
    monkeypatch.setattr("bigtrain.data.occurrences.RANKS_AT_ONCE", 7)
    assert make_order(labels, "class").occurrences.shard_places(3).tolist() == whole.tolist()


@pytest.mark.parametrize("size", [*range(1, 200), 10**6, 2 * 3 * 5 * 7 * 11 * 13 * 17, 3 * 10**9])
def test_the_golden_step_visits_every_sample(size):
    step = golden_step(size)
    assert math.gcd(step, size) == 1
    assert 1 <= step <= max(size - 1, 1)


def test_the_order_is_the_one_that_old_checkpoints_mean():
    # Changing these numbers silently changes what a resumed run reads.
    order = make_order([[0, 1, 0], [0, 0, 0, 1], [0, 2, 0]], "temperature(3)", seed=7)
    assert order.occurrences.places_K.tolist() == [5, 3, 2]
    assert order.samples(np.arange(14)).tolist() == [
        6, 1, 4, 0, 1, 2, 8, 8, 9, 7, 6, 6, 7, 5
    ]  # fmt: skip


def test_labels_that_contradict_the_histogram_are_refused():
    occurrences = Occurrences([{0: 2, 1: 1}], Balance.parse("class"), 0)
    holdout = Holdout((3,), 0.0, 0)
    order = WindowedOrder(holdout, "training", 0, 1, Balanced(holdout, "training", occurrences, lambda _: np.zeros(3)))
    with pytest.raises(DataError, match="rows of shard 0 hold other labels than its class histogram in index.json"):
        order.sample(0)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("classes", "'classes' is no balance of classes; write none, class, or for example temperature"),
        ("temperature", "'temperature' is no balance of classes"),
        ("temperature(0)", "not above 0 and finite"),
        ("temperature(-1)", "not above 0 and finite"),
        ("temperature(inf)", "not above 0 and finite"),
        ("temperature(nan)", "not above 0 and finite"),
        ("temperature(hot)", "'hot' in 'temperature\\(hot\\)' is no number"),
        ("temperature()", "is no number"),
    ],
)
def test_a_wrong_word_is_refused_with_what_may_be_written(word, reason):
    with pytest.raises(ValueError, match=reason):
        DataSettings(shards="somewhere", balance=word)


@pytest.mark.parametrize("text", ["none", "class", "temperature(2)", "temperature(0.1)", "temperature(1234567.25)"])
def test_a_balance_is_written_as_it_is_read(text):
    assert str(Balance.parse(text)) == text
    assert DataSettings(shards="somewhere", balance=text).model_dump(mode="json")["balance"] == text


def test_equal_temperatures_are_written_alike():
    assert {str(Balance.parse(f"temperature({word})")) for word in ("2", " 2.0", "2e0")} == {"temperature(2)"}


def read_by_ranks(shards, order, world, micro, workers, starts):
    """Play all ranks; return the sample numbers in the order's own order."""
    found = np.full((len(starts), world * micro), -1)
    for rank in range(world):
        layout = Layout(rank, world, micro, world * micro)
        feed = Feed(shards, order, layout, workers)
        for row, start in enumerate(starts):
            (batch,) = feed.read(start)
            found[row, list(layout.positions(0))] = batch.sample_N
            assert batch.label_N.tolist() == shards.reader.labels(batch.sample_N.numpy()).tolist()
        feed.close()
    return found.ravel().tolist()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 1),
    share=SHARES,
    window=st.integers(1, 6),
    balance=LAWS,
    world=st.integers(1, 3),
    micro=st.integers(1, 4),
)
def test_all_ranks_together_read_the_balanced_order(tmp_path, sizes, share, window, balance, world, micro):
    folder = tmp_path / "-".join(map(str, sizes))
    if not folder.exists():
        make_shards(folder, sizes, labels=[0 if number % 3 else number % 2 + 1 for number in range(sum(sizes))])
    shards, balance = ShardSet.open(folder, share, seed=1), Balance.parse(balance)
    starts = range(0, 2 * shards.num_samples, world * micro)
    found = read_by_ranks(shards, shards.order(5, window, balance), world, micro, 0, starts)
    assert found == shards.order(5, window, balance).samples(np.arange(len(found))).tolist()
    for epoch in range(2):
        labels = shards.reader.labels(np.array(found[epoch * shards.num_samples : (epoch + 1) * shards.num_samples]))
        assert np.bincount(labels, minlength=3).tolist() == shards.label_places(balance).tolist()


@pytest.mark.parametrize(("world", "workers"), [(1, 2), (2, 1), (3, 5)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create 5 worker processes")
def test_workers_and_other_ranks_after_a_stop_read_the_same_balanced_order(tmp_path, world, workers):
    make_shards(tmp_path, [1, 40, 0, 9], labels=[0] * 40 + [1] * 8 + [2, 2])
    shards = ShardSet.open(tmp_path, 0.1)
    order = shards.order(5, 2, Balance("class"))
    before = read_by_ranks(shards, order, world, 12 // world, workers, range(0, 60, 12))
    after = read_by_ranks(shards, shards.order(5, 2, Balance("class")), 2, 6, 0, range(60, 120, 12))
    assert [*before, *after] == order.samples(np.arange(120)).tolist()


def test_damaged_rows_end_the_reading_of_a_balanced_order_in_a_sentence(tmp_path):
    index = make_shards(tmp_path, [8, 8])
    shards = ShardSet.open(tmp_path)
    (tmp_path / index.shards[0].index_name).write_bytes(b"no rows")
    for workers in (0, 1):
        feed = Feed(shards, shards.order(5, 2, Balance("class")), Layout(0, 1, 4, 4), workers)
        with pytest.raises(DataError, match="is damaged: sha256"):
            feed.read(0)
        feed.close()


def test_a_recipe_chooses_the_order(tmp_path):
    make_shards(tmp_path, [20], labels=[0] * 15 + [1] * 4 + [2])
    shards = ShardSet.open(tmp_path)
    assert shards.label_places(NO_BALANCE).tolist() == [15, 4, 1]
    assert shards.label_places(Balance("class")).tolist() == [7, 7, 6]
    assert (
        shards.order(0, 1).samples(np.arange(20)).tolist()
        == shards.order(0, 1, NO_BALANCE).samples(np.arange(20)).tolist()
    )
