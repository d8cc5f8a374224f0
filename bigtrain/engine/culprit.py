"""Where a turn first holds a value that is not finite: batch, weights, a module's output, a parameter's gradient.

Every module asks the host, so this is for replaying one turn, never for training.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bigtrain.data.batch import Batch
from bigtrain.engine.engine import Engine
from bigtrain.engine.soundness import not_finite


@dataclass
class Culprits:
    """What was found, each in the order in which the turn came to it; empty where all is finite."""

    state: list[str] = field(default_factory=list)
    """Parameters and buffers that were not finite before the turn."""
    samples: list[int] = field(default_factory=list)
    """Sample numbers of real images that were not finite when the networks got them."""
    modules: list[str] = field(default_factory=list)
    """Modules whose output was not finite, inner before outer: "generator.blocks.0.conv (SpectralConv2d)"."""
    gradients: list[str] = field(default_factory=list)
    """Parameters whose gradient was not finite, nearest to the loss first."""

    @property
    def any(self) -> bool:
        """Whether something was found."""
        return bool(self.state or self.samples or self.modules or self.gradients)


@contextmanager
def watched(engine: Engine, player: str) -> Iterator[Culprits]:
    """Find what is not finite in the turns of `player` that are played inside."""
    found, handles = Culprits(), []
    for name, network in engine.game.networks.items():
        found.state += not_finite({f"{name}.{key}": tensor for key, tensor in network.state_dict().items()})
        handles += [
            module.register_forward_hook(_output_watch(found, f"{name}.{path}" if path else name))
            for path, module in network.named_modules()
        ]
    owner = engine.players[player]
    owner.take_the_floor()  # else its parameters may take no hooks
    handles.append(owner.register_forward_pre_hook(_batch_watch(found)))
    for name, parameter in owner.named_parameters():
        handles.append(parameter.register_post_accumulate_grad_hook(_gradient_watch(found, name.removeprefix("own."))))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            yield from _tensors(inner)


def _is_bad(value: Any) -> bool:
    return any(t.is_floating_point() and not bool(torch.isfinite(t).all()) for t in _tensors(value))


def _output_watch(found: Culprits, name: str) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        words = f"{name} ({type(module).__name__})"
        if words not in found.modules and _is_bad(output):
            found.modules.append(words)

    return hook


def _batch_watch(found: Culprits) -> Any:
    def hook(module: nn.Module, inputs: Any) -> None:
        for batch in inputs:
            if isinstance(batch, Batch):
                is_bad_N = ~batch.image_NCHW.isfinite().flatten(1).all(1)  # noqa: N806 (axis)
                found.samples += batch.sample_N[is_bad_N].tolist()

    return hook


def _gradient_watch(found: Culprits, name: str) -> Any:
    def hook(parameter: Tensor) -> None:
        if name not in found.gradients and parameter.grad is not None and _is_bad(parameter.grad):
            found.gradients.append(name)

    return hook
