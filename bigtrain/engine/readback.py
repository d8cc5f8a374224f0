"""Numbers on their way from the device to the host, so that a turn does not wait for them."""

import torch
from torch import Tensor


class Readback:
    """A copy of a small device tensor that was started at once; reading it waits only for what was queued before.

    On a GPU the copy goes to pinned memory behind an event; `tensor.tolist()` would wait for everything that has been
    queued meanwhile, the next step's turns too.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._host = tensor.detach()
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor.detach(), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> list[float]:
        """Return the numbers."""
        if self._event is not None:
            self._event.synchronize()
        numbers: list[float] = self._host.tolist()
        return numbers
