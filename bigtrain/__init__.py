"""bigtrain trains image GANs at cluster scale from one YAML recipe."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigtrain.training.loaded import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # `bigtrain.load` is looked up on first use, so that `import bigtrain` does not import torch.
    if name == "load":
        from bigtrain.training.loaded import load

        return load
    raise AttributeError(f"module 'bigtrain' has no attribute '{name}'")
