"""The random numbers of one image, each in a slot of its own, so that no transformation disturbs another's.

Every transformation has a slot that decides whether it happens (its name with a question mark) and one for each number
it needs. New slots go to the end: then old ones keep their numbers.
"""

# Axes: N images, K slots

import torch
from torch import Tensor

from bigtrain.augment.registry import Uniform

SLOTS = (
    *("flip?", "flip", "turn?", "turn", "shift?", "shift_x", "shift_y"),
    *("scale?", "scale", "rotate_before?", "rotate_before", "stretch?", "stretch", "rotate_after?", "rotate_after"),
    *("drift?", "drift_x", "drift_y"),
    *("brightness?", "brightness", "contrast?", "contrast", "luma?", "luma"),
    *("hue?", "hue", "saturation?", "saturation"),
    *("band_0?", "band_0", "band_1?", "band_1", "band_2?", "band_2", "band_3?", "band_3"),
    *("noise?", "noise", "hole?", "hole_x", "hole_y"),
)
_PLACE = {name: place for place, name in enumerate(SLOTS)}


class Slots:
    """Numbers drawn at once for all images, looked up by name; everything is float64 [N]."""

    def __init__(self, uniform: Uniform, strength: Tensor) -> None:
        self._unit_NK = uniform("ada", len(SLOTS))
        self.strength = strength.to(self._unit_NK.dtype)

    def chosen(self, name: str, chance: Tensor | None = None) -> Tensor:
        """Return bool [N], True with probability `chance` (None: the strength); 0 is never and 1 always."""
        return self.unit(f"{name}?") < (self.strength if chance is None else chance)

    def unit(self, name: str) -> Tensor:
        """Return numbers uniform in (0, 1)."""
        return self._unit_NK[:, _PLACE[name]]

    def between(self, name: str, low: float, high: float) -> Tensor:
        """Return numbers uniform in (low, high)."""
        return low + (high - low) * self.unit(name)

    def normal(self, name: str) -> Tensor:
        """Return standard normal numbers."""
        normal_N: Tensor = torch.special.ndtri(self.unit(name))
        return normal_N
