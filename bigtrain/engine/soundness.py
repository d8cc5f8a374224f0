"""Whether what ranks hold is finite, and the same on all of them, told on the device with one word to the host.

Ranks are compared by a checksum a tensor: the sum over its elements of (bits + 1) times a number that depends on the
place, modulo 2^64. One element that differs always shows; others do but by a chance of about 2^-64.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import RanksDriftedError

CHUNK = 1 << 22  # elements summed at once, 32 MiB of int64
GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, odd, as int64
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # element size in bytes -> bits as


@torch.no_grad()
def checksum(tensor: Tensor) -> Tensor:
    """Return the checksum of a tensor's bits, an int64 scalar on its device; -0.0 and 0.0 differ, NaNs do not."""
    flat = tensor.detach().contiguous().reshape(-1)
    bits = flat.view(INTEGERS[flat.element_size()]) if flat.dtype != torch.bool else flat.to(torch.uint8)
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for first in range(0, len(bits), CHUNK):
        part = bits[first : first + CHUNK].long()
        place = torch.arange(first, first + len(part), device=tensor.device)
        factor = (place * GOLDEN) | 1  # odd, so that no difference is multiplied away
        total += ((part + 1) * factor).sum()
    return total


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of float tensors that hold a value that is not finite, in order."""
    floats = {name: tensor.detach() for name, tensor in tensors.items() if tensor.is_floating_point()}
    finite = _on_host({name: tensor.isfinite().all() for name, tensor in floats.items()})
    return [name for name in floats if not finite[name]]


def _on_host(scalars: Mapping[str, Tensor]) -> dict[str, int]:
    """Return scalars of one dtype as numbers, with one copy a device: Adam's counters may live on another one."""
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, scalar in scalars.items():
        by_device.setdefault(scalar.device, {})[name] = scalar
    found: dict[str, int] = {}
    for same in by_device.values():
        found |= dict(zip(same, torch.stack(list(same.values())).tolist(), strict=True))
    return found


def compare_ranks(ranks: Ranks, tensors: Mapping[str, Tensor], where: str) -> None:
    """Compare tensors, the same names on every rank, across ranks; collective.

    Args:
        ranks: who compares.
        tensors: what has to be equal, byte for byte.
        where: how the sentence says when it was.

    Raises:
        RanksDriftedError: they differ; on all ranks, naming the first tensor in order and the ranks.
    """
    if ranks.world == 1:
        return
    sums = _on_host({name: checksum(tensor) for name, tensor in tensors.items()})
    everyones = ranks.gather_objects([(name, sums[name]) for name in tensors])
    for place, expected in enumerate(everyones[0]):
        others = [rank for rank, theirs in enumerate(everyones) if theirs[place : place + 1] != [expected]]
        if others:
            number = sum(
                any(theirs[at : at + 1] != [word] for theirs in everyones) for at, word in enumerate(everyones[0])
            )
            raise RanksDriftedError(
                f"{expected[0]} differs between rank 0 and rank {', '.join(map(str, others))} {where} ({number} of "
                f"{len(tensors)} tensors differ); start again from the newest checkpoint, and if it happens again "
                "check the memory of those machines"
            )
