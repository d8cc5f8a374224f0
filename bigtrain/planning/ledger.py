"""Books of a computation: the bytes of all tensors that are alive, and the floating-point operations of its matrix
products and convolutions.

Every operator that torch dispatches is entered, those of a backward and of a double backward too. Tensors without
data (the meta device, fake tensors) are booked like real ones, so a turn of any size can be weighed on any machine. Not
seen: scratch space inside one kernel (a convolution's workspace), and how an allocator rounds sizes up.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


def _attention_flop(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    count: int = sdpa_flop_count(query.shape, key.shape, value.shape)
    return count


def _attention_backward_flop(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    count: int = sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)
    return count


def _is_reduced(made: Any) -> bool:
    first = next((leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)), None)
    return first is not None and first.dtype in (torch.bfloat16, torch.float16)


# torch's table has the attention kernels of GPUs only.
FLOP_COUNTS: Mapping[Any, Callable[..., int]] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flop,
}


class Ledger(TorchDispatchMode):
    """Counts while it is entered: `flop`, two for a multiply-add, and those of them in fewer bits than float32's,
    `reduced_flop`; `live_bytes` now and `peak_bytes` so far.

    Args:
        owned: tensors that were there before; neither they nor their views are counted.
    """

    def __init__(self, owned: Iterable[Tensor] = ()) -> None:
        TorchDispatchMode.__init__(self)
        self.flop = 0
        self.reduced_flop = 0
        self.live_bytes = 0
        self.peak_bytes = 0
        self._references: dict[int, weakref.ref[Any]] = {}
        for tensor in owned:
            self._enter(tensor, counted=False)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what was asked for, and book it."""
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if func._overloadpacket in FLOP_COUNTS:
            flop = FLOP_COUNTS[func._overloadpacket](*args, **kwargs, out_val=made)
            self.flop += flop
            self.reduced_flop += flop if _is_reduced(made) else 0
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._enter(leaf, counted=True)
        return made

    def _enter(self, tensor: Tensor, counted: bool) -> None:
        """Book a tensor's memory until its last owner lets go of it; views share one memory, which counts once."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._references:
            return
        size = storage.nbytes() if counted else 0
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

        def leave(_: object) -> None:
            self.live_bytes -= size
            del self._references[address]

        self._references[address] = weakref.ref(storage, leave)
