"""The table of released implementations whose weights can be loaded; one file of this room registers one."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from bigtrain.recipe.registry import Registry

Part = Literal["generator", "discriminator"]
PARTS: tuple[Part, ...] = ("generator", "discriminator")


class Loader(Protocol):
    """Builds our network from a released implementation's configuration and state dict."""

    def __call__(self, part: Part, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
        """Return the network with the released weights in it."""


RELEASED = Registry("released implementation")
