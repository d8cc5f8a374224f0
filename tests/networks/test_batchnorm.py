"""Batch statistics run over exactly the images that the policy says, wherever those images are."""

import copy
import threading

import pytest
import torch

from bigtrain.networks.biggan import BigGANGeneratorSettings
from bigtrain.networks.layers.batchnorm import AffineBatchNorm, ConditionalBatchNorm
from bigtrain.networks.layers.running import BatchStatistics
from bigtrain.networks.layers.statistics import (
    batchnorm_layers,
    commit_running_statistics,
    discard_pending_statistics,
    has_batchnorm,
    running_statistics_names,
    set_batch_statistics,
    standing_statistics,
)
from bigtrain.recipe.image import ImageSpec

IMAGE = ImageSpec(side=32, channels=1, num_classes=10)


def build_generator():
    torch.manual_seed(0)
    generator = (
        BigGANGeneratorSettings(width=4, latent_dim=16, shared_dim=6, attention_sides=(16,)).build(IMAGE).double()
    )
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return generator


def draw(num_images):
    generator = torch.Generator().manual_seed(1)
    latent_NZ = torch.randn(num_images, 16, dtype=torch.float64, generator=generator)
    target = torch.randn(num_images, 1, 32, 32, dtype=torch.float64, generator=generator)
    return latent_NZ, torch.arange(num_images) % 10, target


def play(network, latent_NZ, label_N, target_NCHW):
    """Run forward and backward; return images and gradients."""
    image_NCHW = network(latent_NZ, label_N)
    (image_NCHW * target_NCHW).sum().backward()
    return image_NCHW.detach(), {name: parameter.grad for name, parameter in network.named_parameters()}


def running(network):
    return {name: value for name, value in network.named_buffers() if name in running_statistics_names(network)}


def largest_difference(ours, reference):
    """Return the largest |difference| / |reference| of any tensor; tensors near zero are compared absolutely."""
    assert ours.keys() == reference.keys()
    norms = {key: float(value.norm()) for key, value in reference.items()}
    floor = 1e-6 * max(norms.values())
    found = {key: float((ours[key] - reference[key]).norm()) for key in ours}
    return max(found[key] / (norms[key] if norms[key] > floor else 1) for key in found)


class ThreadSum:
    """Differentiable sum over threads that stand for ranks; counts its calls."""

    def __init__(self, ranks):
        self.barrier = threading.Barrier(ranks, timeout=60)
        self.slots = [None] * ranks
        self.calls = 0

    def total(self, rank, tensor):
        self.slots[rank] = tensor.detach()
        self.barrier.wait()
        total = torch.stack(self.slots).sum(0)
        self.barrier.wait()
        return total

    def of_rank(self, rank):
        outer = self

        class Sum(torch.autograd.Function):
            @staticmethod
            def forward(_, tensor):
                outer.calls += rank == 0
                return outer.total(rank, tensor)

            @staticmethod
            def backward(_, gradient):
                return outer.total(rank, gradient)

        return Sum.apply


def run_ranks(networks, policy, inputs):
    """Play equal parts of the inputs on threads; return each rank's images and gradients, and the number of sums."""
    ranks = len(networks)
    reduction, results = ThreadSum(ranks), [None] * ranks

    def work(rank):
        set_batch_statistics(networks[rank], BatchStatistics(**policy, ranks=ranks, reduce=reduction.of_rank(rank)))
        results[rank] = play(networks[rank], *(tensor.chunk(ranks)[rank] for tensor in inputs))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, reduction.calls


@pytest.mark.parametrize("update", ["now", "later"])
@pytest.mark.parametrize("group_images", [8, None])
def test_two_ranks_equal_one_process(update, group_images):
    inputs, alone = draw(8), build_generator()
    ranks = [copy.deepcopy(alone) for _ in range(2)]
    set_batch_statistics(alone, BatchStatistics(group_images, update=update))
    images, gradients = play(alone, *inputs)
    results, calls = run_ranks(ranks, {"group_images": group_images, "update": update}, inputs)
    assert calls == len(batchnorm_layers(alone))  # one reduction a layer
    assert largest_difference({"image": torch.cat([image for image, _ in results])}, {"image": images}) < 1e-9
    summed = {name: results[0][1][name] + results[1][1][name] for name in gradients}
    assert largest_difference(summed, gradients) < 1e-9
    for network in (alone, *ranks):
        commit_running_statistics(network)
    assert largest_difference(running(ranks[0]), running(alone)) < 1e-9
    torch.testing.assert_close(running(ranks[0]), running(ranks[1]), rtol=0, atol=0)


def test_reduced_variances_survive_a_mean_far_from_zero_in_float32():
    x_NCHW = 1000 + torch.randn(8, 3, 16, 16)
    layer = AffineBatchNorm(3).train()
    layer.running_mean.fill_(1000.0)  # what training has brought it to
    layer.policy = BatchStatistics(ranks=2, reduce=lambda part: 2 * part)  # the other rank holds the same images
    expected = AffineBatchNorm(3).double()(x_NCHW.double())
    assert (layer(x_NCHW) - expected).abs().max() < 1e-3


def test_groups_equal_separate_small_batches():
    inputs, together = draw(12), build_generator()
    apart = copy.deepcopy(together)
    set_batch_statistics(together, BatchStatistics(group_images=4))
    images, gradients = play(together, *inputs)
    set_batch_statistics(apart, BatchStatistics(update="later"))
    parts = [play(apart, *(tensor.chunk(3)[index] for tensor in inputs))[0] for index in range(3)]
    commit_running_statistics(apart)
    assert largest_difference({"image": torch.cat(parts)}, {"image": images}) < 1e-12
    own = {name: parameter.grad for name, parameter in apart.named_parameters()}  # backward has added them up
    assert largest_difference(own, gradients) < 1e-12
    assert largest_difference(running(apart), running(together)) < 1e-12


def test_a_batch_that_does_not_make_groups_is_refused():
    network = build_generator()
    set_batch_statistics(network, BatchStatistics(group_images=3))
    with pytest.raises(AssertionError, match="8 images on each of 1 ranks do not make groups of 3"):
        network(*draw(8)[:2])
    with pytest.raises(AssertionError, match="2 ranks, but reduce is None"):
        BatchStatistics(ranks=2)


def test_statistics_by_hand():
    layer = AffineBatchNorm(1, eps=1e-12, momentum=0.5)
    with torch.no_grad():
        layer.gain.fill_(3.0)
        layer.bias.fill_(1.0)
    x_NCHW = torch.tensor([1.0, 3.0, 5.0, 7.0]).view(4, 1, 1, 1)  # mean 4, variance 5 biased, 20/3 unbiased
    expected = 1 + 3 * torch.tensor([-3.0, -1.0, 1.0, 3.0]) / 5**0.5
    torch.testing.assert_close(layer(x_NCHW).flatten(), expected)
    assert layer.running_mean.item() == pytest.approx(0.5 * 4)
    assert layer.running_var.item() == pytest.approx(0.5 * 1 + 0.5 * 20 / 3)
    running_standard = (x_NCHW.flatten() - 2) / (0.5 + 10 / 3) ** 0.5
    torch.testing.assert_close(layer.eval()(x_NCHW).flatten(), 1 + 3 * running_standard)


def test_later_averages_the_forwards_and_is_folded_in_once():
    layer = AffineBatchNorm(1, momentum=0.25)
    layer.policy = BatchStatistics(update="later")
    first, second = (torch.tensor([[a], [b]]).view(2, 1, 1, 1) for a, b in ((0.0, 2.0), (4.0, 10.0)))
    layer(first), layer(second)
    assert (layer.running_mean.item(), layer.running_var.item()) == (0.0, 1.0)
    rows = []
    commit_running_statistics(layer, average=lambda row_F: rows.append(row_F) or row_F)
    # means 1 and 7, unbiased variances 2 and 18
    assert [row.tolist() for row in rows] == [[4.0, 10.0]]
    assert (layer.running_mean.item(), layer.running_var.item()) == (1.0, 0.75 + 2.5)
    commit_running_statistics(layer)
    assert (layer.running_mean.item(), layer.running_var.item()) == (1.0, 0.75 + 2.5)
    layer(first)
    discard_pending_statistics(layer)
    commit_running_statistics(layer)
    assert (layer.running_mean.item(), layer.running_var.item()) == (1.0, 0.75 + 2.5)


def test_never_leaves_everything_alone():
    network = build_generator()
    before = {name: value.clone() for name, value in network.named_buffers()}
    set_batch_statistics(network, BatchStatistics(update="never"))
    network(*draw(4)[:2])
    torch.testing.assert_close(dict(network.named_buffers()), before, rtol=0, atol=0)


def test_pending_statistics_are_in_no_state_dict():
    layer = AffineBatchNorm(2)
    assert set(layer.state_dict()) == {"running_mean", "running_var", "gain", "bias"}
    assert running_statistics_names(layer) == {"running_mean", "running_var"}


def test_standing_statistics_are_the_plain_average_by_hand():
    layer = AffineBatchNorm(1).eval()
    policy = layer.policy = BatchStatistics(update="later")
    layer.train()(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
    layer.eval()
    pending = layer.pending.clone()
    with standing_statistics(layer):
        assert layer.training
        for values in ([0.0, 2.0], [4.0, 10.0], [1.0, 1.0]):
            layer(torch.tensor(values).view(2, 1, 1, 1))
    assert layer.running_mean.item() == pytest.approx((1 + 7 + 1) / 3)
    assert layer.running_var.item() == pytest.approx((2 + 18 + 0) / 3)
    assert not layer.training
    assert layer.policy is policy
    assert torch.equal(layer.pending, pending)
    assert layer.pending_count.item() == 1


def test_standing_statistics_survive_an_exception_and_no_forward():
    layer = AffineBatchNorm(1).eval()

    def fail():
        with standing_statistics(layer):
            layer(torch.randn(2, 1, 4, 4))
            raise KeyError("sampling failed")

    with pytest.raises(KeyError):
        fail()
    with standing_statistics(layer):
        pass
    assert (layer.running_mean.item(), layer.running_var.item()) == (0.0, 1.0)
    assert not layer.training


def test_a_condition_gives_each_image_its_gain_and_bias():
    layer = ConditionalBatchNorm(2, torch.nn.Embedding(3, 2), torch.nn.Embedding(3, 2), eps=1e-12)
    x_NCHW = torch.randn(4, 2, 3, 3)
    label_N = torch.tensor([0, 2, 2, 1])
    var_C, mean_C = torch.var_mean(x_NCHW, (0, 2, 3), correction=0)
    standard = (x_NCHW - mean_C[:, None, None]) / var_C.sqrt()[:, None, None]
    gain, bias = layer.gain.weight[label_N], layer.bias.weight[label_N]
    expected = standard * (1 + gain)[:, :, None, None] + bias[:, :, None, None]
    torch.testing.assert_close(layer(x_NCHW, label_N), expected)


@pytest.mark.parametrize("ranks", [1, 2])
def test_statistics_stay_float32_under_autocast(ranks):
    layer = AffineBatchNorm(2)
    layer.policy = BatchStatistics(ranks=ranks, reduce=(lambda part: 2 * part) if ranks == 2 else None)
    x_NCHW = (5 + torch.randn(16, 2, 8, 8)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y_NCHW = layer(x_NCHW)
    assert y_NCHW.dtype == torch.bfloat16
    assert layer.running_mean.dtype == torch.float32
    torch.testing.assert_close(layer.running_mean, 0.1 * x_NCHW.float().mean((0, 2, 3)))
    assert y_NCHW.float().mean((0, 2, 3)).abs().max() < 0.01


def test_a_policy_is_shared_by_copies_of_a_network():
    network = build_generator()
    policy = BatchStatistics(ranks=2, reduce=threading.Lock().acquire)  # cannot be copied
    set_batch_statistics(network, policy)
    assert batchnorm_layers(copy.deepcopy(network))[0].policy is policy
    assert has_batchnorm(network)
    assert not has_batchnorm(torch.nn.Linear(1, 1))
