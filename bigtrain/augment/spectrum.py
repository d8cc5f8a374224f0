"""ADA's image-space filtering (Karras et al. 2020, arXiv:2006.06676, appendix B): four octaves of frequency, amplified
or damped at random with the expected power kept.

The octaves are cut by the 4-tap wavelet sym2: h times its mirror image passes the lower half of the frequencies, what
it takes away is the upper half, and so on at half the rate. The four filters sum to one, so equal gains change nothing.
As the paper has it, rows and columns are filtered alike and borders are mirrored; like the resampling, as products
with matrices, one an image.
"""

# Axes: N images, C channels, H height, W width, B octaves from low to high, T taps, S side of an image

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bigtrain.augment.resampling import banded, mirrored
from bigtrain.augment.slots import Slots

GAIN_STD = 1.0  # of the base-2 logarithm of an octave's gain
POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # expected power in each octave of natural images
_ROOT = math.sqrt(3)
_SYM2 = tuple(tap / (4 * math.sqrt(2)) for tap in (1 - _ROOT, 3 - _ROOT, 3 + _ROOT, 1 + _ROOT))


def octave_filters() -> Tensor:
    """Return the symmetric filters of the octaves, float64 [B, T]; their sum is 1 in the middle and 0 elsewhere."""
    lower = [tap / 2 for tap in _convolved(_SYM2, _SYM2[::-1])]
    upper = [-tap for tap in lower]
    upper[len(upper) // 2] += 1
    filters = [[1.0]]
    for _ in POWER[1:]:
        spread = [[part for tap in taps for part in (tap, 0.0)][:-1] for taps in filters]
        filters = [_convolved(taps, lower) for taps in spread]
        margin = [0.0] * ((len(filters[0]) - len(upper)) // 2)
        filters.append([*margin, *upper, *margin])
    return torch.tensor(filters, dtype=torch.float64)


def octave_gains(slots: Slots) -> tuple[Tensor, Tensor]:
    """Return the gain of each octave [N, B], and for which images [N] (bool) any was chosen; 1 for the others."""
    gain_B = [torch.ones_like(slots.unit("band_0")) for _ in POWER]
    chosen_B = [slots.chosen(f"band_{octave}") for octave in range(len(POWER))]
    for octave, chosen_N in enumerate(chosen_B):
        factor_N = torch.where(chosen_N, torch.exp2(GAIN_STD * slots.normal(f"band_{octave}")), 1.0)
        level_N = (POWER[octave] * factor_N.square() + (1 - POWER[octave])).sqrt()  # the other factors are 1
        gain_B = [gain_N * (factor_N if other == octave else 1.0) / level_N for other, gain_N in enumerate(gain_B)]
    return torch.stack(gain_B, dim=1), torch.stack(chosen_B).any(0)


def amplify(image_NCHW: Tensor, gain_NB: Tensor, filter_BT: Tensor) -> Tensor:
    """Return the images with their octaves multiplied by the gains, along rows and along columns."""
    filter_NT = gain_NB.to(image_NCHW.dtype) @ filter_BT.to(image_NCHW.dtype)
    by_row_NSS, by_column_NSS = (_along(size, filter_NT) for size in image_NCHW.shape[2:])
    return by_row_NSS[:, None] @ (image_NCHW @ by_column_NSS[:, None].mT)


def _along(size: int, filter_NT: Tensor) -> Tensor:
    reach = filter_NT.shape[1] // 2
    fine_S = torch.arange(size, device=filter_NT.device)
    place_E = torch.arange(-reach, size + reach, device=filter_NT.device)
    return mirrored(banded(filter_NT, place_E - fine_S[:, None] + reach), -reach, size)


def _convolved(first: Sequence[float], second: Sequence[float]) -> list[float]:
    result = [0.0] * (len(first) + len(second) - 1)
    for place, factor in enumerate(first):
        for step, other in enumerate(second):
            result[place + step] += factor * other
    return result
