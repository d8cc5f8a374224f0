"""What is done to all layers with running statistics of a network at once: policy, commit, standing statistics."""

# Axes: F = all statistics of all layers in one row

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bigtrain.networks.layers.batchnorm import BatchNorm
from bigtrain.networks.layers.running import BatchStatistics, RunningStatistics


def running_layers(network: nn.Module) -> list[RunningStatistics]:
    """Return the layers with running statistics of a network, in the order of its modules."""
    return [module for module in network.modules() if isinstance(module, RunningStatistics)]


def batchnorm_layers(network: nn.Module) -> list[BatchNorm]:
    """Return the batch normalisation layers of a network, in the order of its modules."""
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


def has_batchnorm(network: nn.Module) -> bool:
    """Return whether the network has batch normalisation."""
    return bool(batchnorm_layers(network))


def running_statistics_names(network: nn.Module) -> set[str]:
    """Return the names, as in `named_buffers`, of the running means and variances: the buffers that an EMA averages."""
    return {
        f"{name}.{buffer}" if name else buffer
        for name, module in network.named_modules()
        if isinstance(module, BatchNorm)
        for buffer in ("running_mean", "running_var")
    }


def set_batch_statistics(network: nn.Module, policy: BatchStatistics) -> None:
    """Hand `policy` to every layer with running statistics of the network."""
    for layer in running_layers(network):
        layer.policy = policy


@torch.no_grad()
def commit_running_statistics(
    network: nn.Module,
    average: Callable[[Tensor], Tensor] | None = None,
    momentum: float | None = None,
    wanted: Tensor | None = None,
) -> None:
    """Fold the mean of the pending statistics into the running ones, once, and leave nothing pending.

    Args:
        network: its layers have run forwards with update="later"; one with nothing pending keeps its statistics.
        average: mean of a tensor over ranks, called once, on a row of all layers' statistics; None: this process alone.
        momentum: weight of the new statistics; None: each layer's own.
        wanted: bool scalar on the network's device; where it is False the pending statistics are dropped, without
            asking the host. None: they are wanted.
    """
    layers = running_layers(network)
    if not layers:
        return
    row_F = torch.cat([(layer.pending / layer.pending_count.clamp_min(1)).flatten() for layer in layers])
    row_F = average(row_F) if average else row_F
    rows = torch.split(row_F, [layer.pending.numel() for layer in layers])
    for layer, row in zip(layers, rows, strict=True):
        new = row.view_as(layer.pending)
        # A tensor as the weight, 0 where nothing is pending: asking the host would wait for the device.
        weight = (layer.momentum if momentum is None else momentum) * layer.pending_count.clamp_max(1)
        layer.fold(new if wanted is None else torch.where(wanted, new, layer.running()), weight)
    discard_pending_statistics(network)


@torch.no_grad()
def discard_pending_statistics(network: nn.Module) -> None:
    """Drop what waits for `commit_running_statistics`: the turn was skipped."""
    for layer in running_layers(network):
        layer.pending.zero_()
        layer.pending_count.zero_()


@contextmanager
def standing_statistics(network: nn.Module, average: Callable[[Tensor], Tensor] | None = None) -> Iterator[None]:
    """Make the running statistics the plain average of those of the forwards inside (BigGAN, arXiv:1809.11096).

    Inside, batch normalisation is in train mode over the whole local batch; the rest of the network keeps its mode. On
    exit modes, policies and pending statistics are as before, and running variances are averages of unbiased variances.
    An exception, or no forward at all, leaves the running statistics alone.

    Args:
        network: run its forwards inside, all with as many images.
        average: mean over ranks that run forwards of their own, as in `commit_running_statistics`.
    """
    layers = batchnorm_layers(network)
    kept = [(layer.training, layer.policy, layer.pending.clone(), layer.pending_count.clone()) for layer in layers]
    discard_pending_statistics(network)
    for layer in layers:
        layer.training, layer.policy = True, BatchStatistics(update="later")
    try:
        yield
        commit_running_statistics(network, average, momentum=1.0)
    finally:
        for layer, (training, policy, pending, pending_count) in zip(layers, kept, strict=True):
            layer.training, layer.policy = training, policy
            layer.pending.copy_(pending)
            layer.pending_count.copy_(pending_count)
