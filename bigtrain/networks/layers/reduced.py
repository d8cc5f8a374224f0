"""Which dtype a block computes in: networks with float32 islands ask autocast once, and then cast by hand."""

import torch
from torch import Tensor


def reduced_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype that autocast reduces to on `tensor`'s device; without autocast, or for float64, its own."""
    device_type = tensor.device.type
    if device_type == "meta" or tensor.dtype == torch.float64 or not torch.is_autocast_enabled(device_type):
        return tensor.dtype
    return torch.get_autocast_dtype(device_type)
