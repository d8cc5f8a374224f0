"""Truncation of latents and of styles: six laws that are all called "truncation", told apart by name.

`resample:t`  N(0, 1) redrawn until it lies in [-t, t] (BigGAN, Brock et al. 2018, arXiv:1809.11096, section 3.1).
`scale:t`     t times N(0, 1) redrawn until it lies in [-2, 2] (the released TF-Hub BigGAN modules).
`std:t`       N(0, t^2).
`clamp:t`     N(0, 1) clamped to [-t, t]: has point masses at both ends.
`psi:p`       N(0, 1); its style w becomes w_avg + p (w - w_avg) (StyleGAN, Karras et al. 2018, arXiv:1812.04948,
              appendix B). `psi:p:c` does so for the first c style layers only. p = 1 changes nothing, p = 0 gives the
              average image, p < 0 the opposite of an image.
`none`        N(0, 1).

Styles are the networks' business: here `psi` draws the latent untruncated, and says p and c to whoever maps it.

Departs from the paper: a redraw loop is replaced by the inverse distribution function, which is equal in law, needs one
uniform number a component and is monotone in t. All laws map the same uniform numbers, so one sample looks alike at
neighbouring thresholds: `resample:t` with a large t, `clamp:t` with a large t and `std:1` all tend to `none`.

Axes: N images, Z latent components.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import torch
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from torch import Tensor

from bigtrain.draws import Draws
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.registry import Registry

TRUNCATION_LAWS = Registry("truncation")
NO_TRUNCATION = "none"
PSI = "psi"
LARGEST_PSI = 2.0  # of either sign; farther out, styles are nothing a network was trained on
SCALE_BOUND = 2.0  # TF-Hub modules draw from a normal truncated at two standard deviations before they scale
_Value = TypeVar("_Value", float, int)
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


@TRUNCATION_LAWS.add("psi")
def psi(uniform: Tensor, threshold: float) -> Tensor:
    """N(0, 1), whatever psi is: it is the style that is truncated."""
    return _normal_within(uniform, math.inf)


@dataclass(frozen=True)
class _Numbers:
    """What may stand after a law's name."""

    accepts: Callable[[float | None], bool]
    complaint: str
    takes_cutoff: bool = False


_THRESHOLD = _Numbers(
    accepts=lambda number: number is not None and 0 < number < math.inf,
    complaint="needs a finite threshold above 0, got {number}; write for example '{law}:0.5'",
)
# Laws that are not listed take a threshold.
_NUMBERS = {
    NO_TRUNCATION: _Numbers(lambda number: number is None, "takes no threshold, got {number}; write 'none'"),
    PSI: _Numbers(
        accepts=lambda number: number is not None and -LARGEST_PSI <= number <= LARGEST_PSI,
        complaint=f"needs a psi from -{LARGEST_PSI:g} to {LARGEST_PSI:g}, got {{number}}; "
        "write for example 'psi:0.7', or 'psi:0.7:8' for the first 8 style layers",
        takes_cutoff=True,
    ),
}


@dataclass(frozen=True)
class Truncation:
    """A law and its threshold; `str()` gives the text that `parse` reads."""

    law: str = NO_TRUNCATION
    threshold: float | None = None
    """In standard deviations of the untruncated latent, above 0; for `psi` its factor, -2..2; None for `none`."""
    cutoff: int | None = None
    """Of `psi`: how many leading style layers are truncated, at least 1; None: all."""

    def __post_init__(self) -> None:
        TRUNCATION_LAWS.get(self.law)
        numbers = _NUMBERS.get(self.law, _THRESHOLD)
        if not numbers.accepts(self.threshold):
            complaint = numbers.complaint.format(law=self.law, number=self.threshold)
            raise RecipeError(f"truncation '{self.law}' {complaint}")
        if self.cutoff is None:
            return
        if not numbers.takes_cutoff:
            raise RecipeError(
                f"truncation '{self.law}' takes no number of style layers, got {self.cutoff}; write "
                f"'{Truncation(self.law, self.threshold)}', or 'psi:0.7:{self.cutoff}' to truncate styles"
            )
        if self.cutoff < 1:
            raise RecipeError(
                f"truncation '{self.law}' needs at least 1 style layer, got {self.cutoff}; write 'psi:0.7' for all "
                "layers or 'none' for no truncation"
            )

    @classmethod
    def parse(cls, text: str) -> "Truncation":
        """Read "resample:0.5", "scale:0.5", "std:0.5", "clamp:0.5", "psi:0.7", "psi:0.7:8" or "none".

        Raises:
            RecipeError: the law is unknown (the nearest is named), or a number is missing, wrong or too many.
        """
        law, *numbers = text.strip().split(":")
        TRUNCATION_LAWS.get(law)
        if len(numbers) > 2:
            raise RecipeError(f"truncation '{text}' has {len(numbers)} numbers; write '{law}:0.5' or 'psi:0.7:8'")
        threshold = _read(float, "number", text, numbers[0]) if numbers else None
        cutoff = _read(int, "whole number of style layers", text, numbers[1]) if len(numbers) > 1 else None
        return cls(law, threshold, cutoff)

    def __str__(self) -> str:
        numbers = [_shortest(number) for number in (self.threshold, self.cutoff) if number is not None]
        return ":".join([self.law, *numbers])

    @property
    def psi(self) -> float | None:
        """How much of a style's distance to the average style is kept; None unless the law is `psi`."""
        return self.threshold if self.law == PSI else None

    def apply(self, draws: Draws, num_dims: int, stream: str = "latent") -> Tensor:
        """Return latents [N, num_dims], float32, which depend on the draws' seed and image numbers only.

        For `psi` they are those of `none`; what maps them to styles truncates those by `psi` and `cutoff`.
        `resample` and `clamp` lie in [-threshold, threshold] exactly (the threshold as float32), `scale` in twice that.
        The stream's uniform numbers are used, not its normal ones: `none` equals `draws.normal` in law, not in value.
        """
        law: Law = TRUNCATION_LAWS.get(self.law)
        return law(draws.uniform(stream, num_dims), self.threshold or 0.0).float()


def _read(read: Callable[[str], _Value], what: str, text: str, number: str) -> _Value:
    try:
        return read(number)
    except ValueError as error:
        raise RecipeError(
            f"truncation '{text}': '{number}' is not a {what}; write for example 'resample:0.5' or 'psi:0.7:8'"
        ) from error


def _shortest(number: float) -> str:
    """Write a number so that it is read back exactly, without a needless ".0"."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


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
    WithJsonSchema({"type": "string", "pattern": r"^none$|^[a-z_]+:[0-9.eE+-]+$|^psi:[0-9.eE+-]+:[0-9]+$"}),
]
"""A recipe field that holds a truncation as text, such as "resample:0.5"."""


def sample_draws(seed: int, index_N: Tensor) -> Draws:
    """Return the draws of samples: sample i is the same in any batch, on any rank, in any run with this seed.

    No turn of training has step -1, so samples never repeat the latents that a network was trained on.
    """
    return Draws(seed=seed, salt=0, step=-1, turn=0, index_N=index_N)
