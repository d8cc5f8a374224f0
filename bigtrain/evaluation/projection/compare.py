"""The detection test: how much better a generator's own images are found again than real ones.

An image that a generator made has a code; a real one need not. How well the distance after projection tells the two
apart is the area under the curve of a detector (AUC): the share of pairs of a real and a generated image in which the
real one is farther off. 0.5 says that they are found equally well, 1 that each real image is told from each generated
one.

Axes: N images of a kind, M images of the other.
"""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bigtrain.data.shards import ShardSet
from bigtrain.draws import seed_of
from bigtrain.evaluation.projection.search import Projection
from bigtrain.evaluation.projection.targets import Targets
from bigtrain.recipe.errors import DataError, UsageError
from bigtrain.sampling.files import written_aside
from bigtrain.training.loaded import LoadedModel

EXAMPLES = 4  # of each kind, in the picture
FIGURE_INCHES = (6.0, 4.0)
DPI = 110


def generated_targets(model: LoadedModel, count: int, seed: int) -> Targets:
    """Return generated images of a seed that no projection starts from, without truncation."""
    image_NCHW = model.sample(count, seed=seed_of(seed, "detection"))
    return Targets(image_NCHW, tuple(f"generated {number}" for number in range(count)))


def real_targets(model: LoadedModel, shards: str | Path | None, count: int, seed: int) -> tuple[Targets, str]:
    """Return real images chosen by the seed, and the part they are of: held_out where the run has such a part.

    Args:
        model: whose recipe names the shards.
        shards: folder of shards; None: the recipe's.
        count: how many.
        seed: decides which.

    Raises:
        DataError: the shards are missing, damaged, of other images, or too few.
    """
    data, image = model.recipe.data, model.image
    opened = ShardSet.open(shards or data.shards, data.holdout, model.recipe.seed, data.max_pixels)
    part = opened.holdout() if opened.holdout().num_samples else opened
    if (part.spec.size, part.spec.channels) != (image.size, image.channels):
        raise DataError(
            f"{part.where} holds images of {part.spec.size} px and {part.spec.channels} channels, the model makes "
            f"{image.size} px and {image.channels}; name shards of such images"
        )
    if part.num_samples < count:
        raise DataError(
            f"the {part.part} part of {part.where} has {part.num_samples} images, not {count}; compare fewer"
        )
    chosen = np.random.default_rng(seed).permutation(part.numbers())[:count]
    return Targets(part.load(chosen).image_NCHW, tuple(f"real {number}" for number in chosen)), part.part


def area_under_curve(generated_N: Tensor, real_M: Tensor) -> float:
    """Return the share of pairs in which the real image's distance is larger; ties count half."""
    difference_NM = real_M.double()[None] - generated_N.double()[:, None]
    return float(((difference_NM > 0).double() + (difference_NM == 0).double() / 2).mean())


def comparison(generated: Projection, real: Projection) -> dict[str, Any]:
    """Return both distributions and how well they are told apart, as JSON values."""
    measures = {
        "distance": (generated.distance_N, real.distance_N),
        "pixel_rms_levels": (generated.pixel_rms_N, real.pixel_rms_N),
    }
    return {
        name: {
            "auc": area_under_curve(*pair),
            **{
                kind: {"median": float(values.median()), "mean": float(values.mean()), "values": values.tolist()}
                for kind, values in zip(("generated", "real"), pair, strict=True)
            },
        }
        for name, pair in measures.items()
    }


def require_matplotlib() -> None:
    """Refuse before a long search what could not be drawn after it.

    Raises:
        UsageError: matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "the plot of --compare is drawn by matplotlib, which is not installed; `pip install 'bigtrain[report]'`"
        ) from error


def plot(path: Path, record: dict[str, Any], distance_name: str) -> Path:
    """Write the two cumulative distributions of distances as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(FIGURE_INCHES, layout="constrained")
    axes = figure.subplots()
    for kind, style in (("generated", "-"), ("real", "--")):
        values = np.sort(record["distance"][kind]["values"])
        axes.step([values[0], *values], np.linspace(0, 1, len(values) + 1), style, where="post", label=kind)
    axes.set_xlabel(f"distance after projection ({distance_name})")
    axes.set_ylabel("share of images")
    axes.set_title(f"{len(values)} + {len(values)} images, told apart with AUC {record['distance']['auc']:.3f}")
    axes.legend()
    axes.grid(alpha=0.3)
    with written_aside(path) as stream:
        figure.savefig(stream, format="png", dpi=DPI)
    return path


def examples(generated: Projection, real: Projection) -> tuple[Projection, Projection]:
    """Return the first few of both."""
    return generated[slice(0, EXAMPLES)], real[slice(0, EXAMPLES)]
