"""Modified orthogonal regularisation (BigGAN: Brock et al. 2019, arXiv:1809.11096, eq. 3).

The sum over weights of |W W^T o (1 - I)|_F^2, W a weight as a matrix [D, M]: rows are drawn to be orthogonal, their
norms are left free. Its gradient is 4 (W W^T o (1 - I)) W. The released code adds 2 s (W W^T o (1 - I)) W to each
weight's gradient, with s = 1e-4 where it is on, so its s is a `weight` of s / 2 here. It leaves shared embeddings out;
so should the caller.
"""

# Axes: D rows (output channels), M everything else of a weight

from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonal_penalty(weights: Iterable[Tensor]) -> Tensor:
    """Return the sum of squared inner products of different rows, over all weights: a scalar in at least float32.

    Args:
        weights: at least one weight of two or more axes, the first that of the rows. Autocast does not reach them.
    """
    penalties = [_off_diagonal_square(weight.flatten(1)) for weight in weights]
    assert penalties, "orthogonal regularisation of no weight at all"
    return torch.stack(penalties).sum()


def _off_diagonal_square(weight_DM: Tensor) -> Tensor:
    num_rows, num_columns = weight_DM.shape
    weight_DM = weight_DM if weight_DM.dtype == torch.float64 else weight_DM.float()
    with torch.autocast(weight_DM.device.type, enabled=False):
        if num_rows <= 2 * num_columns:
            inner_DD = weight_DM @ weight_DM.mT
            return (inner_DD - inner_DD.diagonal().diag_embed()).square().sum()
        # |W W^T| = |W^T W|, and W^T W is small here: BigGAN's first layer has 24,576 rows of 20. So many rows in so few
        # dimensions cannot be near orthogonal, so the difference does not cancel.
        return (weight_DM.mT @ weight_DM).square().sum() - weight_DM.square().sum(1).square().sum()
