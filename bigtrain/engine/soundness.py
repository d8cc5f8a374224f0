"""Whether what ranks hold is finite, and the same on all of them, told on the device with one word to the host.

Ranks are compared by a checksum a tensor: the sum over its 64-bit words, each times an odd number that depends on its
place, modulo 2^64. A difference in one word always shows; others do but by a chance of about 2^-64.
"""

import functools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bigtrain.draws import seed_of
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import RanksDriftedError

WORD_BYTES = 8
ROW = 1 << 16  # words summed at once, which a cache holds


@functools.cache
def _factors(device: torch.device) -> Tensor:
    """Return an odd int64 for each place in a row, so that no difference of one word is multiplied away."""
    limit = torch.iinfo(torch.int64)
    factors = torch.randint(limit.min, limit.max, (ROW,), generator=torch.Generator().manual_seed(0)) | 1
    return factors.to(device)


@torch.no_grad()
def checksum(tensor: Tensor) -> Tensor:
    """Return the checksum of a tensor's bits, an int64 scalar on its device; -0.0 and 0.0 differ."""
    octets = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if octets.storage_offset() % WORD_BYTES:  # words must start where words may
        octets = octets.clone()
    whole = len(octets) // WORD_BYTES * WORD_BYTES
    total = torch.full((), len(octets), dtype=torch.int64, device=tensor.device)
    if whole < len(octets):
        total += F.pad(octets[whole:], (0, whole + WORD_BYTES - len(octets))).view(torch.int64)[0]
    for row, part in enumerate(octets[:whole].view(torch.int64).split(ROW)):
        total += (part * _factors(tensor.device)[: len(part)]).sum() * (seed_of("row", row) | 1)
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
