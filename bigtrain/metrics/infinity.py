"""The Frechet distance of infinitely many generated images, by extrapolation (Chong and Forsyth 2020,
arXiv:1911.07023).

The distance of n generated images is too large by about c / n, with a c of its own for each generator. It is taken for
several n and a line in 1 / n is fitted; where 1 / n is 0 stands the answer.

Departs from the paper: the n images are the first n, not redrawn from all of them, so that moments are enough.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from bigtrain.recipe.settings import Settings


class InfinitySettings(Settings):
    """At how many numbers of images the Frechet distance is taken."""

    points: int = Field(default=10, ge=2, le=100)
    """Equally spaced numbers, the last of them all images; moments of each are kept."""

    def cuts(self, num_images: int) -> list[int]:
        """Return the numbers of images, ascending; fewer where there are not so many."""
        return sorted({max(2, num_images * point // self.points) for point in range(1, self.points + 1)})


def extrapolated(num_images: Sequence[int], distances: Sequence[float]) -> float:
    """Return the distance at 1 / n = 0 of the least-squares line through (1 / n, distance)."""
    assert len(set(num_images)) >= 2, f"a line needs two numbers of images, got {list(num_images)}"
    _, intercept = np.polyfit(1 / np.asarray(num_images, dtype=np.float64), distances, 1)
    return float(intercept)
