"""Ways between two latents.

`lerp` is the straight line. `slerp` is the great circle (Shoemake 1985, doi:10.1145/325165.325242; for latents of
generators White 2016, arXiv:1609.04468): normal latents of many dimensions lie near a sphere, which a line leaves.

Axes: N pairs, S steps on the way, Z latent components.
"""

import torch
from torch import Tensor

from bigtrain.recipe.registry import Registry

INTERPOLATIONS = Registry("interpolation")
PARALLEL_SINE = 1e-7  # below this the great circle is not determined in float64, and the straight line is taken


@INTERPOLATIONS.add("lerp")
def lerp(start_NZ: Tensor, end_NZ: Tensor, weight_S: Tensor) -> Tensor:
    """Return [N, S, Z]: points at the weights (0: start, 1: end, both exactly) of the straight line."""
    return torch.lerp(start_NZ[:, None], end_NZ[:, None], weight_S.to(start_NZ)[None, :, None])


@INTERPOLATIONS.add("slerp")
def slerp(start_NZ: Tensor, end_NZ: Tensor, weight_S: Tensor) -> Tensor:
    """Return [N, S, Z]: points at the weights of the great circle from start to end.

    sin((1 - w) a) / sin(a) * start + sin(w a) / sin(a) * end, where a is the angle between them. Computed in float64,
    returned in the dtype of `start_NZ`. Parallel, opposite or zero latents have no single great circle: straight line.
    """
    start, end = start_NZ.double()[:, None], end_NZ.double()[:, None]
    weight = weight_S.to(start)[None, :, None]
    norms = start.norm(dim=-1, keepdim=True) * end.norm(dim=-1, keepdim=True)
    cosine = (start * end).sum(-1, keepdim=True) / norms.clamp(min=torch.finfo(torch.float64).tiny)
    angle = torch.acos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    is_degenerate = (sine < PARALLEL_SINE) | (norms == 0)
    divisor = torch.where(is_degenerate, torch.ones_like(sine), sine)
    circle = (torch.sin((1 - weight) * angle) * start + torch.sin(weight * angle) * end) / divisor
    return torch.where(is_degenerate, torch.lerp(start, end, weight), circle).to(start_NZ.dtype)


def evenly(num_steps: int) -> Tensor:
    """Return `num_steps` weights from 0 to 1, both included, float64."""
    assert num_steps >= 2, f"a way has at least its two ends, got num_steps {num_steps}"
    return torch.linspace(0, 1, num_steps, dtype=torch.float64)
