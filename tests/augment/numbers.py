"""Images and random numbers for tests of augmentations: drawn from counters, or set by hand."""

from collections.abc import Callable

import torch
from torch import Tensor

from bigtrain.augment.slots import SLOTS
from bigtrain.draws import Draws

NEVER = 1 - 2.0**-53  # above every strength but 1
ALWAYS = 2.0**-53


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random pixels."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def drawn_by(*index: int, step: int = 0) -> Callable[..., Tensor]:
    """The uniform numbers of training for these images of a batch."""
    return Draws(seed=7, salt=0, step=step, turn=0, index_N=torch.tensor(index)).uniform


def numbers_of(*chosen: str, **unit: float) -> Callable[..., Tensor]:
    """Uniform numbers of one image: `chosen` transformations happen, their numbers are `unit` or one half."""

    def uniform(name: str, *shape: int) -> Tensor:
        if name != "ada":
            return torch.full((1, *shape), 0.5, dtype=torch.float64)
        values = {slot: NEVER if slot.endswith("?") else 0.5 for slot in SLOTS}
        values |= {f"{transformation}?": ALWAYS for transformation in chosen}
        values |= unit
        assert len(values) == len(SLOTS), f"unknown slots in {chosen}, {unit}"
        return torch.tensor([[values[slot] for slot in SLOTS]], dtype=torch.float64)

    return uniform


HALF = torch.tensor(0.5)
