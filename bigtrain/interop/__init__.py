"""Released weights to our networks: names and shapes, nothing that runs foreign code."""

from bigtrain.interop.load import load_released

__all__ = ["load_released"]
