"""The picture of a truncation curve: distance against fidelity or variety, and every figure over the threshold."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigtrain.metrics.figures import badness, is_higher_better
from bigtrain.recipe.errors import DataError, UsageError
from bigtrain.reports.evaluations import is_compared
from bigtrain.sampling.files import written_aside

SCORES = ("inception_score", "is_classifier", "recall", "precision")  # the first one that is there is the x axis
WORDS = {
    "fid": "FID",
    "inception_score": "Inception score",
    "is_classifier": "Inception score of the run's own classifier",
    "fd_classifier": "Frechet distance, own classifier's features",
    "fd_dinov2": "Frechet distance, DINOv2 features",
    "fd_random": "Frechet distance, random network's features",
}
INCHES, ONE_PANEL_INCHES, DOTS_PER_INCH = (10.0, 4.4), (6.0, 4.4), 110


def plot_curve(path: Path, points: Sequence[Mapping[str, Any]], title: str) -> None:
    """Write the picture of a curve's points as a PNG file.

    Raises:
        UsageError: matplotlib is not installed.
        DataError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("pictures of curves need matplotlib; pip install 'bigtrain[report]'") from error
    distance, score = axes_of(points)
    figure = Figure(INCHES if score else ONE_PANEL_INCHES, DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(1, 2 if score else 1, squeeze=False)[0]
    _trade(figure, panels[0], points, distance, score)
    if score is not None:
        _over_threshold(panels[1], points, distance, score)
    figure.suptitle(title)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    try:
        with written_aside(path) as out:
            out.write(stream.getvalue())
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); free space, or mend its folder") from error


def axes_of(points: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """Return the names of the first distance and of the figure that it is drawn against; None: the threshold."""
    names = [name for name in points[0]["figures"] if is_compared(name)]
    distance = next((name for name in names if not is_higher_better(name)), names[0])
    return distance, next((score for score in SCORES if score in names and score != distance), None)


def _trade(figure: Any, axes: Any, points: Sequence[Mapping[str, Any]], distance: str, score: str | None) -> None:
    thresholds = [point["threshold"] for point in points]
    y = [point["figures"][distance] for point in points]
    x = thresholds if score is None else [point["figures"][score] for point in points]
    axes.plot(x, y, color="0.75", zorder=1)
    dots = axes.scatter(x, y, c=thresholds, cmap="viridis", zorder=2)
    figure.colorbar(dots, ax=axes, label="threshold")
    best = min(range(len(y)), key=lambda place: badness(distance, y[place]))
    for place in sorted({0, best, len(points) - 1}):
        side = "right" if x[place] > (min(x) + max(x)) / 2 else "left"  # the words stay inside
        axes.annotate(
            points[place]["truncation"],
            (x[place], y[place]),
            (0, 9),
            textcoords="offset points",
            ha=side,
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
        )
    axes.margins(0.08)
    axes.set_xlabel("threshold" if score is None else _words(score))
    axes.set_ylabel(_words(distance))
    axes.grid(alpha=0.3)


def _over_threshold(axes: Any, points: Sequence[Mapping[str, Any]], distance: str, score: str) -> None:
    thresholds = [point["threshold"] for point in points]
    shares = [name for name in ("precision", "recall") if name in points[0]["figures"]]
    lines = axes.plot(thresholds, [point["figures"][distance] for point in points], color="C0", label=_words(distance))
    axes.set_ylabel(_words(distance), color="C0")
    right = axes.twinx()
    for number, name in enumerate(shares or [score]):
        values = [point["figures"][name] for point in points]
        lines += right.plot(thresholds, values, color=f"C{number + 1}", label=_words(name))
    right.set_ylabel(" and ".join(map(_words, shares or [score])))
    axes.legend(handles=lines, fontsize=8, ncols=len(lines), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.set_xlabel("threshold")
    axes.grid(alpha=0.3)


def _words(name: str) -> str:
    return WORDS.get(name, name)
