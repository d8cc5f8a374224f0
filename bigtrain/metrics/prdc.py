"""Precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991), density and coverage (Naeem et al. 2020,
arXiv:2002.09797) of generated features against real ones.

Around every feature lies a ball that reaches to its k-th nearest neighbour of the same set. Precision: the share of
generated features in any real ball; recall: of real ones in any generated ball; density: how many real balls a
generated feature lies in, divided by k; coverage: the share of real balls that hold a generated feature. Balls are
closed, as torch-fidelity's are. Distances are in float64, a block of rows at a time.

Departs from torch-fidelity, whose distances are in float32: counts differ where two of them are closer than its
rounding. Departs from the code of arXiv:2002.09797, whose balls are open.

Axes: N generated, M real images, B rows of a block, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from bigtrain.recipe.settings import PositiveCount, Settings

BLOCK_NUMBERS = 1 << 24  # distances held at a time: 128 MiB of float64


class PrdcSettings(Settings):
    """Neighbourhoods of precision, recall, density and coverage."""

    neighbours: PositiveCount = 3
    """Neighbours that a ball of precision and recall reaches to; fewer where a set has not so many."""
    density_neighbours: PositiveCount = 5
    """Neighbours that a ball of density and coverage reaches to."""
    max_images: PositiveCount = Field(default=10_000, ge=2)
    """Images of each set: the first generated ones, and real ones picked at random (seeded)."""


@dataclass(frozen=True)
class Prdc:
    """The four figures."""

    precision: float
    recall: float
    density: float
    coverage: float


def radii(feature_ND: Tensor, neighbours: tuple[int, ...]) -> list[Tensor]:
    """Return, for each k in `neighbours`, the squared distance of every feature to its k-th neighbour, float64 [N].

    A set of n features has n - 1 neighbours at most.
    """
    assert len(feature_ND) >= 2, f"a neighbour needs 2 features, got {len(feature_ND)}"
    reach = [min(k, len(feature_ND) - 1) for k in neighbours]
    rows: list[Tensor] = []
    for first, distance_BN in _blocks(feature_ND, feature_ND):
        block_B = torch.arange(len(distance_BN), device=distance_BN.device)
        distance_BN[block_B, first + block_B] = torch.inf  # no feature is a neighbour of itself
        rows.append(distance_BN.topk(max(reach), largest=False, sorted=True).values)
    nearest_NK = torch.cat(rows)
    return [nearest_NK[:, k - 1] for k in reach]


def prdc(generated_ND: Tensor, real_MD: Tensor, settings: PrdcSettings, real_radii: list[Tensor] | None = None) -> Prdc:
    """Return the four figures of two sets of features.

    Args:
        generated_ND: any float dtype; its device computes.
        real_MD: likewise, on the same device.
        settings: the neighbourhoods; `max_images` is the caller's to keep.
        real_radii: what `radii` says of the real features for both numbers of neighbours, where it is known already.
    """
    neighbours = (settings.neighbours, settings.density_neighbours)
    near_M, wide_M = (part.to(real_MD.device) for part in real_radii or radii(real_MD, neighbours))
    (near_N,) = radii(generated_ND, neighbours[:1])
    is_precise, num_balls = [], 0
    is_recalled_M = torch.zeros(len(real_MD), dtype=torch.bool, device=real_MD.device)
    is_covered_M = is_recalled_M.clone()
    for first, distance_BM in _blocks(generated_ND, real_MD):
        is_precise.append((distance_BM <= near_M).any(1))
        is_recalled_M |= (distance_BM <= near_N[first : first + len(distance_BM), None]).any(0)
        in_ball_BM = distance_BM <= wide_M
        num_balls += int(in_ball_BM.sum())
        is_covered_M |= in_ball_BM.any(0)
    reach = min(settings.density_neighbours, len(real_MD) - 1)
    return Prdc(
        precision=float(torch.cat(is_precise).double().mean()),
        recall=float(is_recalled_M.double().mean()),
        density=num_balls / (reach * len(generated_ND)),
        coverage=float(is_covered_M.double().mean()),
    )


def _blocks(a_ND: Tensor, b_MD: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, squared distances of some rows of a to all of b), float64 [B, M]."""
    rows = max(1, BLOCK_NUMBERS // len(b_MD))
    middle_D = b_MD.double().mean(0)  # distances do not see it, and small numbers cancel less
    b_MD = b_MD.double() - middle_D
    norm_M = b_MD.square().sum(1)
    for first in range(0, len(a_ND), rows):
        a_BD = a_ND[first : first + rows].double() - middle_D
        distance_BM = torch.addmm(a_BD.square().sum(1, keepdim=True) + norm_M, a_BD, b_MD.T, alpha=-2)
        yield first, distance_BM.clamp_(min=0)
