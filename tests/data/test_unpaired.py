"""Two unpaired sets: each comes once in each of its own epochs, whatever the ranks, workers and stops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from bigtrain.data.balance import Balance
from bigtrain.data.feed import Feed
from bigtrain.data.pixels import encode
from bigtrain.data.settings import DataSettings
from bigtrain.data.shards import ShardSet
from bigtrain.games.noise_to_image import NoiseToImageSettings
from bigtrain.recipe.errors import DataError, RecipeError
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.load import load_recipe
from bigtrain.training.build import open_shards
from bigtrain.training.schema import Recipe
from tests.data.test_pairs import make_pairs
from tests.shard_factory import damage_sample, label_of, make_shards, number_in, numbered_image
from tests.training.toy_runs import RECIPE, TOY

SECOND = 10_000  # added to a number in the images of set b
SEED = 5


def make_two(folder, sizes_a, sizes_b):
    """Write both sets once."""
    places = [folder / "-".join([name, *map(str, sizes)]) for name, sizes in (("a", sizes_a), ("b", sizes_b))]
    for place, sizes, more in zip(places, (sizes_a, sizes_b), (0, SECOND), strict=True):
        if not place.exists():
            make_shards(place, sizes, image_bytes=lambda number, more=more: _png(number + more))
    return places


def _png(number):
    return encode(numbered_image(number), "png")


def open_two(places, **more):
    a, b = map(str, places)
    return DataSettings.model_validate({"shards": a, "shards_b": b, "allow_sorted": True, **more}).build(SEED)


def assert_of_both(batch):
    """Images, labels and numbers of each set belong together."""
    assert [number_in(image) for image in batch.image_NCHW] == batch.sample_N.tolist()
    assert [number_in(image) - SECOND for image in batch.image_b_NCHW] == batch.sample_b_N.tolist()
    for label_N, sample_N in ((batch.label_N, batch.sample_N), (batch.label_b_N, batch.sample_b_N)):
        assert label_N.tolist() == [label_of(number, 3) for number in sample_N.tolist()]


def played(shards, window, world, micro, workers, starts, batch_images):
    """Play all ranks; return the numbers of both sets in each global batch, [batches * images, 2]."""
    found = np.full((len(starts), batch_images, 2), -1)
    for rank in range(world):
        layout = Layout(rank, world, micro, batch_images)
        feed = Feed(shards, shards.order(SEED, window), layout, workers)
        for row, start in enumerate(starts):
            for micro_index, batch in enumerate(feed.read(start)):
                assert_of_both(batch)
                numbers = torch.stack([batch.sample_N, batch.sample_b_N], 1)
                found[row, list(layout.positions(micro_index))] = numbers
        feed.close()
    return found.reshape(-1, 2)


SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) > 0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.tuples(SIZES, SIZES),
    share=st.sampled_from([0.0, 0.0, 0.3]),
    window=st.integers(1, 5),
    world=st.integers(1, 3),
    micro=st.integers(1, 3),
    accumulation=st.integers(1, 3),
)
def test_each_set_comes_once_in_each_of_its_epochs(tmp_path, sizes, share, window, world, micro, accumulation):
    shards = open_two(make_two(tmp_path, *sizes), holdout=share)
    batch_images = world * micro * accumulation
    longest = max(shards.num_samples, shards.second.num_samples)
    starts = range(0, 2 * longest, batch_images)
    found_N2 = played(shards, window, world, micro, 0, starts, batch_images)
    assert found_N2.tolist() == shards.order(SEED, window).samples(np.arange(len(found_N2))).tolist()
    for number_N, part in zip(found_N2.T, (shards, shards.second), strict=True):
        for epoch in range(len(number_N) // part.num_samples):
            once = number_N[epoch * part.num_samples : (epoch + 1) * part.num_samples]
            assert np.array_equal(np.sort(once), part.numbers())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.tuples(SIZES, SIZES),
    window=st.integers(1, 5),
    starts=st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6]), st.integers(0, 4)), min_size=2, max_size=4),
)
def test_any_ranks_go_on_where_any_others_stopped(tmp_path, sizes, window, starts):
    shards, position, found = open_two(make_two(tmp_path, *sizes)), 0, []
    for world, steps in [(4, 1), *starts]:
        batches = range(position, position + 12 * steps, 12)
        found += played(shards, window, world, 12 // world, 0, batches, 12).tolist()
        position += 12 * steps
    assert found == shards.order(SEED, window).samples(np.arange(position)).tolist()


@pytest.mark.parametrize("by_value_bytes", [0, 1 << 17])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_what_is_read(tmp_path, monkeypatch, workers, by_value_bytes):
    monkeypatch.setattr("bigtrain.data.feed.BY_VALUE_BYTES", by_value_bytes)
    shards = open_two(make_two(tmp_path, [5, 9], [3, 1, 13]))
    found_N2 = played(shards, 2, 2, 3, workers, range(0, 48, 12), 12)
    assert found_N2.tolist() == shards.order(SEED, 2).samples(np.arange(48)).tolist()


def test_the_orders_of_both_sets_are_not_one(tmp_path):
    place = make_two(tmp_path, [40, 40], [1])[0]
    shards = open_two([place, place], holdout=0.25)
    found_N2 = shards.order(SEED, 2).samples(np.arange(60))
    assert (found_N2[:, 0] == found_N2[:, 1]).mean() < 0.2
    assert not np.array_equal(shards.numbers(), shards.second.numbers())
    assert shards.holdout().num_samples == shards.holdout().second.num_samples == 20
    assert shards.holdout().training().second.numbers().tolist() == shards.second.numbers().tolist()


def test_the_hash_covers_both_and_alone_a_set_keeps_its_own(tmp_path):
    a, b, c = (*make_two(tmp_path, [5], [4]), make_two(tmp_path, [1], [6])[1])
    hashes = {open_two(places).content_hash for places in ([a, b], [a, c], [b, a], [a, a])}
    alone = DataSettings.model_validate({"shards": str(a), "allow_sorted": True}).build(SEED)
    assert len(hashes | {alone.content_hash}) == 5
    assert alone.content_hash == ShardSet.open(a).content_hash
    assert open_two([a, b]).sample_kind == "unpaired"


def test_classes_of_each_set_are_balanced(tmp_path):
    shards = open_two(make_two(tmp_path, [30], [45]))
    order = shards.order(SEED, 1, Balance("class"))
    for column, part in ((0, shards), (1, shards.second)):
        number_N = order.samples(np.arange(part.num_samples))[:, column]
        counts = np.bincount(part.reader.labels(number_N), minlength=3)
        assert counts.max() - counts.min() <= 1


def test_damage_in_b_stops_or_is_replaced_in_b_alone(tmp_path):
    places = make_two(tmp_path, [5], [9])
    damage_sample(places[1], 4)
    with pytest.raises(DataError, match=r"sample '000004' .*damaged"):
        open_two(places).load(np.array([[1, 4], [2, 5]]))
    batch = open_two(places, on_error="skip").load(np.array([[1, 4], [2, 5]]))
    assert_of_both(batch)
    assert batch.sample_N.tolist() == [1, 2]
    assert batch.sample_b_N[1] == 5
    assert batch.sample_b_N[0] != 4
    assert [bad.number for bad in batch.bad] == [4]


def test_on_a_device_everything_of_b_is_there(tmp_path):
    batch = open_two(make_two(tmp_path, [5], [9])).load(np.array([[1, 4], [2, 5]]))
    ready = batch.on_device(torch.device("cpu"), torch.tensor([True, False]))
    assert ready.image_b_NCHW.dtype == torch.float32
    assert torch.equal(ready.image_b_NCHW[0], (batch.image_b_NCHW[0].flip(2).float() - 127.5) / 127.5)
    assert torch.equal(ready.sample_b_N, batch.sample_b_N)
    assert batch.part(slice(1, 2)).label_b_N.tolist() == batch.label_b_N.tolist()[1:]


def test_sets_that_do_not_fit_each_other_are_refused(tmp_path):
    a, b = make_two(tmp_path, [5], [9])
    make_shards(tmp_path / "wide", [5], size=(4, 6))
    make_shards(tmp_path / "colour", [5], channels=3)
    make_shards(tmp_path / "classes", [5], num_classes=2)
    make_pairs(tmp_path / "pairs", [5])
    for name, words in [
        ("wide", "holds images of 6x4x1 in 3 classes, and .* images of 4x4x1 in 3 classes; bring both to one size"),
        ("colour", "holds images of 4x4x3 in 3 classes"),
        ("classes", "holds images of 4x4x1 in 2 classes"),
        ("pairs", "holds pairs of images, and a second set stands beside single ones"),
    ]:
        with pytest.raises(DataError, match=f"data.shards_b: .*{words}"):
            open_two([a, tmp_path / name])
    with pytest.raises(DataError, match="holds pairs of images, and a second set"):
        open_two([tmp_path / "pairs", b])
    with pytest.raises(DataError, match=r"nowhere"):
        open_two([a, tmp_path / "nowhere"])


@pytest.mark.parametrize("key", ["shards", "shards_b"])
def test_places_of_both_sets_are_checked_alike(key):
    facts = {"shards": "a", "shards_b": "b", key: "pipe:cat"}
    with pytest.raises(ValueError, match="commands are never run"):
        DataSettings.model_validate(facts)
    remote = DataSettings.model_validate({"shards": "a", "shards_b": "b", key: "https://host/b"})
    assert "shards under https:// are read from copies" in next(remote.problems())


@pytest.mark.parametrize("workers", [0, 2])
def test_staged_copies_of_both_sets_read_alike(tmp_path, workers):
    places = make_two(tmp_path, [5, 6, 7], [3, 1, 13])
    plain, staged = open_two(places), open_two(places, cache_dir=str(tmp_path / "cache"), cache_gib=1)
    orders = [shards.order(SEED, 2).samples(np.arange(48)) for shards in (plain, staged)]
    assert orders[0].tolist() == orders[1].tolist()
    assert played(staged, 2, 2, 3, workers, range(0, 48, 12), 12).tolist() == orders[0].tolist()
    gib = sum(entry.bytes for part in (plain, plain.second) for entry in part.index.shards) / 2**30
    small = {"cache_dir": str(tmp_path / "cache"), "shuffle_window_shards": 2}
    for room in (0.99 * gib, 1e-9):  # the larger one holds a window of both sets, but not those of the next one too
        words = "cannot hold the 4 shards of a shuffle window of both sets with those of the next one, which together"
        with pytest.raises(DataError, match=f"data.cache_gib: .* {words} take up to {gib:.3g}; give that, or lower"):
            open_two(places, **small, cache_gib=room)
    assert open_two(places, **small, cache_gib=1.01 * gib).num_samples == 18


def test_a_game_of_single_images_refuses_a_second_set_before_anything_is_opened(tmp_path, monkeypatch):
    sets = [f"data.shards={tmp_path}/a", f"data.shards_b={tmp_path}/b"]
    with pytest.raises(RecipeError, match=r"shards_b: names a second set, but noise_to_image trains on single ima"):
        load_recipe(RECIPE, [*TOY, *sets], Recipe)
    monkeypatch.setattr(NoiseToImageSettings, "takes", "pair")
    with pytest.raises(RecipeError, match="data.mode: stream gives single images, but noise_to_image trains on pairs"):
        load_recipe(RECIPE, [*TOY, sets[0], "data.mode=stream"], Recipe)
    monkeypatch.setattr(NoiseToImageSettings, "takes", "unpaired")
    with pytest.raises(RecipeError, match=r"shards_b: is missing, but noise_to_image trains on two sets of images"):
        load_recipe(RECIPE, [*TOY, sets[0]], Recipe)
    for name, more in (("a", 0), ("b", 3)):
        make_shards(tmp_path / name, [9 + more], size=(32, 32))
    recipe = load_recipe(RECIPE, [*TOY, *sets, "image.num_classes=3"], Recipe)
    assert open_shards(recipe).sample_kind == "unpaired"


class Copies(TorchDispatchMode):
    """Counts what is copied to another device."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("device") is not None:
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def test_each_image_is_copied_to_a_device_once(tmp_path):
    both = open_two(make_two(tmp_path, [5], [9])).load(np.array([[1, 4], [2, 5]]))
    for batch, images in ((both, 2), (replace(both, image_b_NCHW=None, label_b_N=None, sample_b_N=None), 1)):
        with Copies() as copies:
            batch.on_device(torch.device("meta"))
        assert sorted(copies.shapes) == sorted(images * [(2,), (2,), (2, 1, 4, 4)])
