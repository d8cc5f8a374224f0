"""Which arithmetic runs in full precision whatever autocast says: weights, statistics, heads."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast leaves operations on `tensor`'s device alone."""
    device_type = tensor.device.type
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return `tensor` as float32, or unchanged when it is float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
