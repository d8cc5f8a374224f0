"""The one call that turns a released implementation's configuration and tensors into our network."""

import importlib
import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bigtrain.interop.registry import PARTS, RELEASED, Loader
from bigtrain.recipe.errors import WeightsError
from bigtrain.recipe.registry import nearest


def load_released(kind: str, part: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Return our network, in eval mode, holding a released implementation's weights.

    Args:
        kind: name of the implementation, as `biggan`.
        part: `generator` or `discriminator`.
        config: the released names of its settings; values may be JSON text, as safetensors metadata has them.
        state: the part's state dict under the released names, without a prefix.
    Raises:
        RecipeError: the kind is unknown; the nearest known one is named.
        WeightsError: the part is unknown, a setting is missing or unusable, or tensors are missing, surplus or of
            another shape; all of them are listed.
    """
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")
    loader: Loader = RELEASED.get(kind)
    if part not in PARTS:
        hint = f"; did you mean '{close}'?" if (close := nearest(part, list(PARTS))) else ""
        raise WeightsError(f"'{part}' is not a part of {kind}{hint}; parts: {', '.join(PARTS)}")
    return loader(part, {key: _plain(value) for key, value in config.items()}, state).eval()


def _plain(value: Any) -> Any:
    """Return what a JSON text stands for, and anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value  # plain text, as 64_32
