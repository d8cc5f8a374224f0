"""Truncation of latents: five laws that are all called "truncation", told apart by name.

`resample:t`  N(0, 1) redrawn until it lies in [-t, t] (BigGAN, Brock et al. 2018, arXiv:1809.11096, section 3.1).
`scale:t`     t times N(0, 1) redrawn until it lies in [-2, 2] (the released TF-Hub BigGAN modules).
`std:t`       N(0, t^2).
`clamp:t`     N(0, 1) clamped to [-t, t]: has point masses at both ends.
`none`        N(0, 1).

Departs from the paper: a redraw loop is replaced by the inverse distribution function, which is equal in law, needs one
uniform number a component and is monotone in t. All laws map the same uniform numbers, so one sample looks alike at
neighbouring thresholds: `resample:t` with a large t, `clamp:t` with a large t and `std:1` all tend to `none`.

Axes: N images, Z latent components.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from torch import Tensor

from bigtrain.draws import Draws
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.registry import Registry

TRUNCATION_LAWS = Registry("truncation")
NO_TRUNCATION = "none"
SCALE_BOUND = 2.0  # TF-Hub modules draw from a normal truncated at two standard deviations before they scale
_LARGEST_SHARE = 1 - 2.0**-53  # erfinv(1) is infinite; a uniform number may round to 1

Law = Callable[[Tensor, float], Tensor]
"""(uniform numbers in (0, 1), float64; threshold) -> latents of the same shape, float64."""


def _normal_within(uniform: Tensor, bound: float) -> Tensor:
    """Map uniform numbers to N(0, 1) conditioned on [-bound, bound] (bound may be infinite)."""
    share = ((2 * uniform - 1) * math.erf(bound / math.sqrt(2))).clamp(-_LARGEST_SHARE, _LARGEST_SHARE)
    return (math.sqrt(2) * torch.erfinv(share)).clamp(-bound, bound)


@TRUNCATION_LAWS.add("none")
def untruncated(uniform: Tensor, threshold: float) -> Tensor:
    """N(0, 1); the threshold is not read."""
    return _normal_within(uniform, math.inf)


@TRUNCATION_LAWS.add("resample")
def resample(uniform: Tensor, threshold: float) -> Tensor:
    """N(0, 1) conditioned on [-threshold, threshold]."""
    return _normal_within(uniform, threshold)


@TRUNCATION_LAWS.add("scale")
def scale(uniform: Tensor, threshold: float) -> Tensor:
    """Threshold times N(0, 1) conditioned on [-2, 2]."""
    return threshold * _normal_within(uniform, SCALE_BOUND)


@TRUNCATION_LAWS.add("std")
def std(uniform: Tensor, threshold: float) -> Tensor:
    """N(0, threshold^2)."""
    return threshold * _normal_within(uniform, math.inf)


@TRUNCATION_LAWS.add("clamp")
def clamp(uniform: Tensor, threshold: float) -> Tensor:
    """N(0, 1) clamped to [-threshold, threshold]."""
    return _normal_within(uniform, math.inf).clamp(-threshold, threshold)


@dataclass(frozen=True)
class Truncation:
    """A law and its threshold; `str()` gives the text that `parse` reads."""

    law: str = NO_TRUNCATION
    threshold: float | None = None
    """In standard deviations of the untruncated latent, above 0; None for the law `none`."""

    def __post_init__(self) -> None:
        TRUNCATION_LAWS.get(self.law)
        if self.law == NO_TRUNCATION:
            if self.threshold is not None:
                raise RecipeError(f"truncation '{self.law}' takes no threshold, got {self.threshold}; write 'none'")
        elif self.threshold is None or not 0 < self.threshold < math.inf:
            raise RecipeError(
                f"truncation '{self.law}' needs a finite threshold above 0, got {self.threshold}; "
                f"write for example '{self.law}:0.5'"
            )

    @classmethod
    def parse(cls, text: str) -> "Truncation":
        """Read "resample:0.5", "scale:0.5", "std:0.5", "clamp:0.5" or "none".

        Raises:
            RecipeError: the law is unknown (the nearest is named), or the threshold is missing or no number above 0.
        """
        law, colon, number = text.strip().partition(":")
        TRUNCATION_LAWS.get(law)
        if not colon:
            return cls(law)
        try:
            threshold = float(number)
        except ValueError as error:
            raise RecipeError(f"truncation '{text}': '{number}' is not a number; write '{law}:0.5'") from error
        return cls(law, threshold)

    def __str__(self) -> str:
        return self.law if self.threshold is None else f"{self.law}:{self.threshold:g}"

    def apply(self, draws: Draws, num_dims: int, stream: str = "latent") -> Tensor:
        """Return latents [N, num_dims], float32, which depend on the draws' seed and image numbers only.

        `resample` and `clamp` lie in [-threshold, threshold] exactly (the threshold as float32), `scale` in twice that.
        The stream's uniform numbers are used, not its normal ones: `none` equals `draws.normal` in law, not in value.
        """
        law: Law = TRUNCATION_LAWS.get(self.law)
        return law(draws.uniform(stream, num_dims), self.threshold or 0.0).float()


def _from_recipe(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return Truncation.parse(value)
    except RecipeError as error:
        raise ValueError(str(error)) from error


TruncationText = Annotated[
    Truncation,
    BeforeValidator(_from_recipe),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^none$|^[a-z_]+:[0-9.eE+-]+$"}),
]
"""A recipe field that holds a truncation as text, such as "resample:0.5"."""


def sample_draws(seed: int, index_N: Tensor) -> Draws:
    """Return the draws of samples: sample i is the same in any batch, on any rank, in any run with this seed.

    No turn of training has step -1, so samples never repeat the latents that a network was trained on.
    """
    return Draws(seed=seed, salt=0, step=-1, turn=0, index_N=index_N)
