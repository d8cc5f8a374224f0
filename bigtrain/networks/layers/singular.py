"""Top singular values of weights, by subspace iteration (Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithm
4.4)."""

# Axes: D first axis of a weight, M all its other axes, B columns of the block

import torch
from torch import Tensor, nn

OVERSAMPLING = 5  # columns beyond those asked for
ITERATIONS = 6


@torch.no_grad()
def top_singular_values(weight: Tensor, count: int = 3) -> Tensor:
    """Return the `count` largest singular values of a weight seen as a matrix [D, M], largest first, float32.

    Estimates from below, good to percents where values lie close together; always from the same start, so that equal
    weights give equal values. A weight of a lower rank than `count` gives fewer.
    """
    weight_DM = weight.detach().float().flatten(1)
    columns = min(count + OVERSAMPLING, *weight_DM.shape)
    start = torch.Generator().manual_seed(0)
    block_MB = torch.randn(weight_DM.shape[1], columns, generator=start).to(weight_DM.device)
    for _ in range(ITERATIONS):
        block_DB = torch.linalg.qr(weight_DM @ block_MB).Q
        block_MB = torch.linalg.qr(weight_DM.mT @ block_DB).Q
    values: Tensor = torch.linalg.svdvals(weight_DM @ block_MB)
    return values[:count]


def largest_weights(network: nn.Module, count: int) -> dict[str, Tensor]:
    """Return the `count` parameters of the most numbers that have at least two axes, by name."""
    weights = {name: parameter for name, parameter in network.named_parameters() if parameter.ndim > 1}
    names = sorted(weights, key=lambda name: (-weights[name].numel(), name))[:count]
    return {name: weights[name] for name in names}
