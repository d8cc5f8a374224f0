"""Minibatch standard deviation: the formula by hand, and which images a statistic runs over."""

import threading

import pytest
import torch
from torch import nn

from bigtrain.networks.layers.minibatch_std import MinibatchStd, has_minibatch_std, set_minibatch_std
from bigtrain.networks.layers.running import BatchStatistics

EPS = 1e-8


def build(channels=1, **policy):
    layer = MinibatchStd(channels)
    layer.policy = BatchStatistics(**policy)
    return layer


def draw(num_images, channels=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_images, channels, 3, 5, dtype=dtype, generator=generator)


def by_hand(x_NCHW, group_images, parts=1):
    """Return the statistics [N, parts], one group and one part of the channels after the other."""
    rows = []
    for group_BCHW in x_NCHW.split(group_images):
        statistics = []
        for part_BCHW in group_BCHW.chunk(parts, 1):
            variance_CHW = (part_BCHW - part_BCHW.mean(0)).square().sum(0) / len(part_BCHW)
            statistics.append((variance_CHW + EPS).sqrt().mean())
        rows += [torch.stack(statistics)] * len(group_BCHW)
    return torch.stack(rows)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("group_images", [None, 1, 2, 4, 12])
@pytest.mark.parametrize("training", [True, False])
def test_contiguous_groups_by_hand(group_images, parts, training):
    x_NCHW = draw(12)
    y_NCHW = build(parts, group_images=group_images).train(training)(x_NCHW)
    assert torch.equal(y_NCHW[:, :6], x_NCHW)
    expected_NF11 = by_hand(x_NCHW, group_images or 12, parts)[:, :, None, None]
    torch.testing.assert_close(y_NCHW[:, 6:], expected_NF11.expand(-1, -1, 3, 5), rtol=1e-12, atol=0)


def test_two_pixels_by_hand():
    x_NCHW = torch.tensor([[1.0, 0.0], [5.0, 0.0]]).view(2, 1, 1, 2)  # standard deviations 2 and almost 0
    statistic_N1HW = MinibatchStd()(x_NCHW)[:, 1:]
    torch.testing.assert_close(statistic_N1HW, torch.full((2, 1, 1, 2), (2 + 1e-4) / 2))


def test_an_image_only_moves_the_statistic_of_its_group():
    layer, x_NCHW = build(group_images=4), draw(12)
    changed_NCHW = x_NCHW.clone()
    changed_NCHW[5] *= 3
    moved_N = (layer(x_NCHW)[:, 6, 0, 0] != layer(changed_NCHW)[:, 6, 0, 0]).tolist()
    assert moved_N == [False] * 4 + [True] * 4 + [False] * 4


class ThreadSum:
    """Differentiable sum over threads that stand for ranks; its gradient is one too."""

    def __init__(self, ranks):
        self.barrier = threading.Barrier(ranks, timeout=60)
        self.slots = [None] * ranks

    def of_rank(self, rank):
        outer = self

        class Sum(torch.autograd.Function):
            @staticmethod
            def forward(_, tensor):
                outer.slots[rank] = tensor.detach()
                outer.barrier.wait()
                total = torch.stack(outer.slots).sum(0)
                outer.barrier.wait()
                return total

            @staticmethod
            def backward(_, gradient):
                return Sum.apply(gradient)

        return Sum.apply


def penalised(layer, x_NCHW, weight_NCHW):
    """Return output, slope of a loss in the images, and slope of the slope's square."""
    x_NCHW = x_NCHW.clone().requires_grad_()
    y_NCHW = layer(x_NCHW)
    (slope_NCHW,) = torch.autograd.grad((y_NCHW.square() * weight_NCHW).sum(), x_NCHW, create_graph=True)
    (second_NCHW,) = torch.autograd.grad(slope_NCHW.square().sum(), x_NCHW)
    return y_NCHW.detach(), slope_NCHW.detach(), second_NCHW


def on_ranks(ranks, work):
    """Return what `work(rank)` gave on each of so many threads."""
    found = [None] * ranks

    def run(rank):
        found[rank] = work(rank)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in found
    return found


@pytest.mark.parametrize(("ranks", "group_images", "groups"), [(2, 4, 1), (2, 4, 3), (4, 4, 2), (2, 12, 1)])
def test_groups_spread_over_ranks_are_those_of_one_process(ranks, group_images, groups):
    x_NCHW, weight_NCHW = draw(group_images * groups), draw(group_images * groups, 7)
    whole = penalised(build(group_images=group_images), x_NCHW, weight_NCHW)
    # Rank r holds the r-th share of every group.
    places_RN = torch.arange(len(x_NCHW)).view(groups, ranks, -1).transpose(0, 1).flatten(1)
    total = ThreadSum(ranks)

    def work(rank):
        layer = build(group_images=group_images, ranks=ranks, reduce=total.of_rank(rank))
        return penalised(layer, x_NCHW[places_RN[rank]], weight_NCHW[places_RN[rank]])

    for rank, found in enumerate(on_ranks(ranks, work)):
        for ours_NCHW, reference_NCHW in zip(found, whole, strict=True):
            torch.testing.assert_close(ours_NCHW, reference_NCHW[places_RN[rank]], rtol=1e-10, atol=1e-12)


def no_reduction(_):
    raise AssertionError("eval mode asked other ranks")


@pytest.mark.parametrize(("num_images", "group"), [(8, 4), (4, 4), (6, 6), (3, 3), (1, 1), (2, 2)])
def test_eval_mode_looks_at_whole_groups_or_at_all_images_and_never_at_other_ranks(num_images, group):
    layer, x_NCHW = build(group_images=4, ranks=2, reduce=no_reduction).eval(), draw(num_images)
    torch.testing.assert_close(layer(x_NCHW)[:, 6, :1, 0], by_hand(x_NCHW, group), rtol=1e-12, atol=0)


def test_train_mode_refuses_a_batch_that_makes_no_groups():
    with pytest.raises(AssertionError, match="6 images do not make shares of 4"):
        build(group_images=4)(draw(6))


def test_statistics_are_in_full_precision():
    x_NCHW = draw(4, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y_NCHW = build()(x_NCHW)
    assert y_NCHW.dtype == torch.float32
    assert torch.equal(y_NCHW, build()(x_NCHW.float()))


def test_nearly_equal_images_do_not_cancel_on_two_ranks():
    """One image a rank, 1000 and 1000.25: a second moment less the squared mean would lose that in float32."""
    total = ThreadSum(2)

    def work(rank):
        layer = build(group_images=2, ranks=2, reduce=total.of_rank(rank))
        return layer(torch.full((1, 1, 2, 2), 1000 + 0.25 * rank))

    for y_NCHW in on_ranks(2, work):
        torch.testing.assert_close(y_NCHW[:, 1], torch.full((1, 2, 2), 0.125), rtol=1e-3, atol=0)


def test_layers_are_found_and_get_the_policy():
    plain, network = (
        nn.Sequential(nn.Conv2d(3, 3, 1)),
        nn.Sequential(nn.Conv2d(3, 3, 1), MinibatchStd(), MinibatchStd()),
    )
    assert (has_minibatch_std(plain), has_minibatch_std(network)) == (False, True)
    policy = BatchStatistics(group_images=2)
    set_minibatch_std(network, policy)
    assert [layer.policy for layer in network[1:]] == [policy, policy]
