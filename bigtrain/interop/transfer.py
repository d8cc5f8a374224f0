"""Copying released tensors into a network, with every difference reported at once."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bigtrain.recipe.errors import WeightsError

Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


def renamed(name: str, rules: Rules) -> str:
    """Return the name after each rule in turn: a pattern, and what replaces it where it is found (as in re.sub)."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def setting(config: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """Return a released setting that must be there.

    Raises:
        WeightsError: it is missing or of another type.
    """
    if name not in config:
        raise WeightsError(f"the configuration has no '{name}'; found {sorted(config)}; copy it from the weight file")
    value = config[name]
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise WeightsError(
            f"the configuration's '{name}' is {value!r}, which is of another type; copy the released value"
        )
    return value


@torch.no_grad()
def copy_tensors(
    network: nn.Module, state: Mapping[str, Tensor], names: Mapping[str, str], ignored: Iterable[str]
) -> None:
    """Copy `state` into the network's parameters and buffers.

    Args:
        network: receives the values, in its own dtype.
        state: released tensors by released name; a shape may differ by axes of length 1.
        names: our name -> released name, for every tensor that must be there.
        ignored: released names that need not be there and are not read.
    Raises:
        WeightsError: tensors are missing, surplus or mis-shaped; all are listed.
    """
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    problems = [f"'{released}' is missing" for released in names.values() if released not in state]
    problems += [f"'{released}' is surplus" for released in sorted(set(state) - set(names.values()) - set(ignored))]
    for name, released in names.items():
        if released in state and _squeezed(state[released]) != _squeezed(own[name]):
            problems.append(f"'{released}' is {list(state[released].shape)}, not {list(own[name].shape)}")
    if problems:
        title = f"the weights do not fit {type(network).__name__}; check that the configuration is theirs"
        raise WeightsError(f"{title}: {'; '.join(problems)}")
    for name, released in names.items():
        own[name].copy_(state[released].reshape(own[name].shape))


def _squeezed(tensor: Tensor) -> list[int]:
    return [length for length in tensor.shape if length != 1]
