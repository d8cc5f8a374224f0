"""Anything that changes over a run: a pure function of images seen. `2e-4`, `{constant: 2e-4}` or `{cosine: [2e-4,
5e-5], over: 20M}`."""

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from bigtrain.recipe.settings import PositiveCount, Settings


class Constant(Settings):
    """One value for the whole run."""

    constant: float
    """The value."""

    def at(self, images_seen: int) -> float:
        """Return the value after `images_seen` images."""
        return self.constant


class Cosine(Settings):
    """From the first value to the second along half a cosine, then constant (R3GAN, arXiv:2501.05441, appendix)."""

    cosine: tuple[float, float]
    """First and last value."""
    over: PositiveCount
    """Images seen at which the last value is reached."""

    def at(self, images_seen: int) -> float:
        """Return the value after `images_seen` images."""
        first, last = self.cosine
        share = min(images_seen / self.over, 1.0)
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))


def _read(value: Any) -> Any:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return {"constant": value}
    if not isinstance(value, dict | Settings):
        raise ValueError("not a schedule; write a number, or {cosine: [2e-4, 5e-5], over: 20M}")
    return value


SHAPES = frozenset(next(iter(shape.model_fields)) for shape in (Constant, Cosine))
"""The keys that name a schedule's shape."""

Schedule = Annotated[
    Annotated[Constant | Cosine, Field(union_mode="left_to_right")],
    BeforeValidator(_read, json_schema_input_type=float | Constant | Cosine),
]
"""A constant or a cosine over images seen."""
