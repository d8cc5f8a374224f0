"""The names of figures: which of them rank generators, and which way is better.

A Frechet distance is `fid` in Inception's features and `fd_KIND` in an extractor's of that kind, kernel distances are
`kid` and `kd_KIND`, scores `inception_score` and `is_KIND`. Endings such as `_std` and `_real_against_real` say how far
to trust a figure, and rank nothing.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

HIGHER_IS_BETTER = ("inception_score", "precision", "recall", "density", "coverage")  # and is_KIND; others: distances
PUBLISHED = ("fid", "kid", *HIGHER_IS_BETTER)
FRECHET = "frechet"
"""In a recipe: the Frechet distance that `evaluate` measures first, whatever its name is."""


def frechet_name(extractor_kind: str) -> str:
    """Return the name of the Frechet distance in the features of one kind of extractor."""
    return "fid" if extractor_kind == "inception" else f"fd_{extractor_kind}"


def ranking_figures(metrics: Iterable[str]) -> list[str]:
    """Return the names of all figures that generators can be ranked by, where there are metrics of these names."""
    others = [name for name in metrics if name not in ("fid", "kid", "is") and not name.startswith("prdc_")]
    return [*PUBLISHED, *others]


def is_higher_better(figure: str) -> bool:
    """Tell whether a larger value of this figure, or of a variant such as `recall_seeds_std`, is better; the others are
    distances."""
    return figure.startswith((*HIGHER_IS_BETTER, "is_"))


def badness(figure: str, value: float) -> float:
    """Return a number that is smaller for a better value of this figure, whichever way is better."""
    return -value if is_higher_better(figure) else value


def is_frechet(figure: str) -> bool:
    """Tell whether a figure is a Frechet distance between generated and all real images."""
    return figure == "fid" or (figure.startswith("fd_") and not figure.endswith(("_same_size", "_real_against_real")))


def own_figure(recipe: Mapping[str, Any], newest_first: Iterable[Mapping[str, float]]) -> str | None:
    """Return the figure that a run is ranked by, as `checkpoint.keep_best_by` of its recipe says; None without any.

    Args:
        recipe: as plain values, resolved; an empty one counts as a recipe of defaults.
        newest_first: figures of evaluations, for the name of the Frechet distance where the recipe evaluates nothing.
    """
    named = _member(recipe, "checkpoint").get("keep_best_by", FRECHET)
    if named != FRECHET:
        return str(named)
    evaluate = _member(recipe, "evaluate")
    first = next(iter(evaluate.get("metrics") or ()), None)
    kind = _member(evaluate, "extractor").get("kind")
    if first is None and kind is not None:
        return frechet_name(str(kind))
    if first is not None and is_frechet(str(first)):
        return str(first)
    return next((name for figures in newest_first for name in figures if is_frechet(name)), None)


def _member(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def is_finite(value: object) -> bool:
    """Tell whether a JSON value is a figure that can be compared."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
