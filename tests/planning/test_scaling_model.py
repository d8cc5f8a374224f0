"""The scaling model's sums by hand, and its buckets against those of a real DistributedDataParallel."""

import pytest
import torch
from torch import nn

from benchmarks import scaling_model
from benchmarks.scaling_model import (
    Cluster,
    Dealt,
    Link,
    TurnShape,
    buckets_of,
    exposed_s,
    layouts,
    load,
    ring_s,
    shapes,
    small_s,
    step,
)
from bigtrain.games.base import Turn
from bigtrain.planning.gpus import Speed
from tests.rank_pool import run_ranks

CLUSTER = Cluster(2, inside=Link(1.0, 100.0), between=Link(10.0, 10.0))


def test_a_ring_passes_twice_over_all_ranks_but_one():
    assert ring_s(400, 4, Link(1.0, 100.0)) == 2 * 3 * (1 + 100 / 100)
    assert ring_s(400, 1, Link(1.0, 100.0)) == 0


def test_a_hierarchy_sends_a_nodes_share_between_nodes():
    # Two nodes of two: 2 (1 + 200 / 100) inside; of 200 bytes each, 2 log2(2) 10 + 2 (1 / 2) 200 / 10 between.
    assert CLUSTER.reduce_s(400, 4) == 2 * (1 + 2) + 20 + 20
    assert CLUSTER.reduce_s(400, 2) == ring_s(400, 2, CLUSTER.inside)
    assert small_s(8, CLUSTER.between) == 2 * 3 * 10


@pytest.mark.parametrize(
    ("ready", "costs", "exposed"),
    [
        ([1, 2, 3], [2, 2, 2], 3),  # one after the other: done at 3, 5, 7
        ([1, 2, 3], [0.5, 0.5, 0.5], 0),
        ([1, 4, 4], [1, 2, 1], 3),  # the last two wait for the end
        ([3, 1], [2, 2], 3),  # the second is ready first, and has to wait: done at 5, 7
    ],
)
def test_what_is_left_after_the_arithmetic(ready, costs, exposed):
    assert exposed_s(ready, costs, computed_s=4) == exposed


def test_a_step_is_its_turns_with_what_is_not_hidden(monkeypatch):
    """Turn of 8 s in two micro-batches on four GPUs: its bucket of 400 bytes is ready in the second one, after 7 s, and
    takes 46 s; with two small sums of 40 s each that is 8 + 45 + 80. A ring: 2 x 3 x (10 + 10) = 120 instead of 45."""
    monkeypatch.setattr(scaling_model, "SPEED", Speed(peak_tflops=1e-12, mfu=1.0))  # 1 FLOP a second
    turns = [TurnShape(Turn("generator"), 0.5, flop=4, buckets=((400, 3),), group_sums=0)]
    found = step(turns, load("digits-mlp"), Dealt(4, 1, 2), CLUSTER)
    assert found.computed == 0.5 * 8
    assert found.ours == 0.5 * (8 + 45 + 80)
    assert found.flat == 0.5 * (8 + 120 + 80)


def test_sums_over_statistics_groups_block_in_every_micro_batch(monkeypatch):
    monkeypatch.setattr(scaling_model, "SPEED", Speed(peak_tflops=1e-12, mfu=1.0))
    recipe = load("digits-biggan")  # groups of 32 images: two ranks of 16
    turns = [TurnShape(Turn("generator"), 1.0, flop=1, buckets=((0, 0),), group_sums=5)]
    alone = step(turns, recipe, Dealt(2, 32, 1), CLUSTER).ours
    assert step(turns, recipe, Dealt(2, 16, 3), CLUSTER).ours == pytest.approx(alone + 2 + 5 * 3 * 2 * 1)


def test_a_recipe_is_dealt_its_own_batch_where_it_fits_and_a_grown_one_elsewhere():
    found = list(layouts(load("imagenet128-biggan")))
    assert ("its batch", Dealt(8, 128, 2)) in found
    assert ("grown batch", Dealt(8, 128, 1)) in found
    assert ("its batch", Dealt(1024, 2, 1)) in found
    assert ("grown batch", Dealt(1024, 128, 1)) in found
    assert [dealt for how, dealt in layouts(load("digits-biggan")) if how == "its batch"] == [Dealt(8, 4, 1)]


def test_gradients_get_ready_during_the_backward_pass_and_the_last_with_its_end():
    (discriminator, generator) = shapes("digits-dcgan", 4)
    for turn in (discriminator, generator):
        ready = [flop for _, flop in turn.buckets]
        assert 0 < min(ready) <= max(ready) <= turn.flop
        assert turn.flop / 3 < max(ready)  # not before the forward pass is over
    assert sum(size for size, _ in generator.buckets) == 4 * sum(
        parameter.numel() for parameter in networks("digits-dcgan")["generator"].parameters()
    )


def test_sums_of_groups_over_ranks_are_counted_forward_and_backward():
    own, alone = shapes("digits-biggan", 16), shapes("digits-biggan", 32)
    assert all(turn.group_sums == 0 for turn in alone)
    discriminator, generator = own
    # Without a gradient, each BatchNorm sums once; with one, each sum is summed again backward.
    assert generator.group_sums == 2 * discriminator.group_sums > 0


def networks(name):
    from bigtrain.games.base import DataFacts

    recipe = load(name)
    with torch.device("meta"):
        return recipe.game.build(DataFacts(recipe.image.spec, (1,) * recipe.image.num_classes or None)).networks


WIDTHS = (600, 900, 1500, 40, 2800, 2500, 10)  # a layer of 28 MB, which is a bucket alone, among smaller ones


def built():
    return nn.Sequential(*(nn.Linear(a, b) for a, b in zip(WIDTHS, WIDTHS[1:], strict=False)))


def reduced_numbers(ranks):
    """Return how many numbers each reduction of a real backward pass has, in order."""
    from torch.nn.parallel import DistributedDataParallel

    found = []

    def hook(_, bucket):
        found.append(bucket.buffer().numel())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    wrapped = DistributedDataParallel(
        built(), find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True
    )
    wrapped.register_comm_hook(None, hook)
    for _ in range(2):  # DDP may change its buckets after the first
        found.clear()
        wrapped(torch.zeros(1, WIDTHS[0])).sum().backward()
    return found


@pytest.mark.two_process
def test_buckets_are_those_of_a_real_ddp():
    parameters = list(built().parameters())
    ours = [sum(parameters[i].numel() for i in bucket) for bucket in buckets_of(parameters)]
    assert run_ranks(2, reduced_numbers) == [ours, ours]
    assert len(ours) > 2
