"""The nearest of very many features to each of some, in memory that does not grow with the many.

Distances are Euclidean, reckoned in float64 from squares and products: between copies they are small differences of
large numbers.

Axes: Q queries, B features of a block, K neighbours, D features.
"""

import torch
from torch import Tensor

NO_NUMBER = -1  # of a query that is none of the features; of a neighbour that was not found


def squared_distances(a_QD: Tensor, b_BD: Tensor) -> Tensor:
    """Return the squared distances [Q, B] of float64 features; never negative."""
    assert a_QD.dtype == b_BD.dtype == torch.float64, f"{a_QD.dtype} and {b_BD.dtype}: small distances need float64"
    square_Q1, square_B = a_QD.square().sum(1, keepdim=True), b_BD.square().sum(1)
    return (square_Q1 + square_B - 2 * a_QD @ b_BD.mT).clamp_min_(0)


class NearestNeighbours:
    """The K nearest features of each query among all that were added; holds Q * (D + 2 K) numbers.

    Args:
        query_QD: features whose neighbours are wanted.
        num_neighbours: K.
        own_Q: int64, the number of each query where it is itself among the features, which is not its neighbour, else
            NO_NUMBER. None: no query is.
    """

    def __init__(self, query_QD: Tensor, num_neighbours: int, own_Q: Tensor | None = None) -> None:
        self._query_QD, self._own_Q = query_QD.double(), own_Q
        shape, device = (len(query_QD), num_neighbours), query_QD.device
        self._square_QK = torch.full(shape, torch.inf, dtype=torch.float64, device=device)
        self.number_QK = torch.full(shape, NO_NUMBER, dtype=torch.int64, device=device)
        """Numbers of the neighbours, nearest first; of equally near ones those that were added first."""

    @property
    def distance_QK(self) -> Tensor:  # noqa: N802 (axes)
        """Distances of the neighbours, float64, nearest first; infinite where fewer than K were added."""
        return self._square_QK.sqrt()

    def add(self, number_B: Tensor, feature_BD: Tensor) -> None:
        """Look at a block of features.

        Args:
            number_B: int64, their numbers.
            feature_BD: on the queries' device.
        """
        square_QB = squared_distances(self._query_QD, feature_BD.double())
        number_B = number_B.to(square_QB.device)
        if self._own_Q is not None:
            square_QB.masked_fill_(self._own_Q.to(square_QB.device)[:, None] == number_B, torch.inf)
        # Few queries find a nearer one in a block, once some blocks were seen; only those are sorted.
        row_R = (square_QB.amin(1) < self._square_QK[:, -1]).nonzero()[:, 0]
        square = torch.cat([self._square_QK[row_R], square_QB[row_R]], 1)
        number = torch.cat([self.number_QK[row_R], number_B.expand(len(row_R), -1)], 1)
        square, order = square.sort(dim=1, stable=True)
        kept = self.number_QK.shape[1]
        self._square_QK[row_R] = square[:, :kept]
        self.number_QK[row_R] = number.gather(1, order[:, :kept])
