"""Pictures of an audit, with words and numbers that can be read without it; matplotlib, without a display.

Axes: N images, C channels, H height, W width, R rows, K neighbours or classes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bigtrain.recipe.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {"generated": "#d55e00", "training": "#0072b2", "held_out": "#009e73"}  # Okabe and Ito's, told apart by all
CELL_INCHES = 0.95
MOST_NUMBERS = 20  # classes whose cells have room for a number
MOST_NAMES = 60  # classes whose names have room at an axis
HISTOGRAM_BINS = 40
DOTS_PER_INCH = 110


def require_matplotlib() -> None:
    """Make sure that pictures can be drawn.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"an audit draws pictures with matplotlib, which cannot be imported ({error}); "
            "pip install 'bigtrain[report]'"
        ) from error


def _figure(width_inches: float, height_inches: float, title: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def _show(axes: Any, image_CHW: Tensor, text: str, color: str = "black") -> None:
    pixels = image_CHW.permute(1, 2, 0).cpu().numpy()
    pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(text, fontsize=7, labelpad=2, color=color)


def _short(distance: float) -> str:
    return f"{distance:#.3g}".rstrip(".")


Rows = tuple[Sequence[int], Tensor, Tensor, Tensor]
"""Numbers of generated images, the images [R, C, H, W], their neighbours [R, K, C, H, W], distances [R, K]."""


def neighbours_picture(title: str, panels: Mapping[str, Rows], threshold: float, near: str) -> "Figure":
    """Draw generated images, each with its nearest training images and their distances; red: near-duplicates."""
    num_rows, num_neighbours = next(iter(panels.values()))[3].shape
    columns = 1 + num_neighbours
    size = (len(panels) * columns * CELL_INCHES + 0.4, num_rows * CELL_INCHES * 1.2 + 1.0)
    figure = _figure(*size, f"{title}: each row is a generated image, then training images with their distance")
    figure.supxlabel(
        f"red: up to {_short(threshold)}, as near as {near} have a training image; "
        "numbers as in `bigtrain sample --index`",
        fontsize=8,
    )
    for part, (name, (numbers, images, neighbours, distances)) in zip(
        figure.subfigures(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        part.suptitle(name, fontsize=10)
        cells = np.asarray(part.subplots(num_rows, columns, squeeze=False))
        for row, number in enumerate(numbers):
            _show(cells[row, 0], images[row], f"image {number}", COLORS["generated"])
            for column in range(num_neighbours):
                distance = float(distances[row, column])
                color = "red" if distance <= threshold else "black"
                _show(cells[row, column + 1], neighbours[row, column], _short(distance), color)
    return figure


Couples = tuple[Sequence[int], Tensor, Sequence[float]]
"""Numbers of images, two a pair, the images [2R, C, H, W], the distance of each pair."""


def pairs_picture(title: str, panels: Mapping[str, Couples]) -> "Figure":
    """Draw the pairs of images that lie nearest to each other, generated beside real ones."""
    num_pairs = max(len(distances) for *_, distances in panels.values())
    columns = 3  # pairs in a row
    rows = -(-num_pairs // columns)
    size = (len(panels) * columns * 2 * CELL_INCHES + 0.4, rows * CELL_INCHES * 1.25 + 1.0)
    figure = _figure(*size, f"{title}, with their distance: generated images, and training images beside them")
    for part, (name, (numbers, images, distances)) in zip(
        figure.subfigures(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        part.suptitle(name, fontsize=10, color=COLORS[name])
        cells = np.asarray(part.subplots(rows, 2 * columns, squeeze=False)).reshape(-1, 2)
        for axes in cells[len(distances) :].flat:
            axes.set_axis_off()
        for pair, distance in enumerate(distances):
            for side in (0, 1):
                at = 2 * pair + side
                text = f"{numbers[at]}" if side else f"{numbers[at]}   {_short(distance)}"
                _show(cells[pair, side], images[at], text)
    return figure


Bars = tuple[Sequence[int], Sequence[int], Sequence[str] | None]
"""Counts of generated images, of training images, and names of the bins (None: sorted by the training images)."""


def bars_picture(title: str, panels: Mapping[str, Bars]) -> "Figure":
    """Draw the shares of generated and of training images in each bin."""
    figure = _figure(8.5, 2.6 * len(panels) + 0.6, f"{title}: shares of generated and of training images")
    cells = np.asarray(figure.subplots(len(panels), 1, squeeze=False))[:, 0]
    for axes, (name, (counts, real, names)) in zip(cells, panels.items(), strict=True):
        share, real_share = (np.asarray(each) / max(1, sum(each)) for each in (counts, real))
        order = np.arange(len(share)) if names is not None else np.argsort(-real_share, kind="stable")
        place = np.arange(len(share))
        axes.bar(place - 0.2, real_share[order], 0.4, color=COLORS["training"], label=f"training ({sum(real):,})")
        axes.bar(place + 0.2, share[order], 0.4, color=COLORS["generated"], label=f"generated ({sum(counts):,})")
        axes.set_xlabel(name, fontsize=8)
        axes.set_ylabel("share", fontsize=8)
        axes.tick_params(labelsize=7)
        is_named = names is not None and len(names) <= MOST_NAMES
        axes.set_xticks(place if is_named else [], names if is_named else [], rotation=90 if len(place) > 12 else 0)
        axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the legend
        axes.legend(fontsize=7, loc="upper right", ncols=2)
    return figure


def confusion_picture(title: str, count_KK: npt.NDArray[np.int64], names: Sequence[str]) -> "Figure":
    """Draw the share of each row's images in each column."""
    share_KK = count_KK / np.maximum(count_KK.sum(1, keepdims=True), 1)
    num_classes = len(names)
    side = float(np.clip(2.5 + 0.45 * num_classes, 4.5, 12))
    figure = _figure(side + 1, side, f"{title}: share of a row, {int(count_KK.sum()):,} images")
    axes = figure.subplots()
    drawn = axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_ylabel("class asked for")
    axes.set_xlabel("class that the classifier sees")
    if num_classes <= MOST_NAMES:
        axes.set_xticks(range(num_classes), names, rotation=90 if num_classes > 12 else 0, fontsize=7)
        axes.set_yticks(range(num_classes), names, fontsize=7)
    if num_classes <= MOST_NUMBERS:
        for asked, seen in zip(*np.nonzero(count_KK), strict=True):
            share = share_KK[asked, seen]
            text = f"{share:.0%}" if share >= 0.005 else "<1%"
            axes.text(seen, asked, text, ha="center", va="center", fontsize=7, color="w" if share > 0.6 else "k")
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    return figure


def logits_picture(title: str, sets: Mapping[str, Tensor], has_classes: bool) -> "Figure":
    """Draw histograms of the discriminator's output above its mean on generated images, for each set of images."""
    figure = _figure(7.5, 3.8, f"{title}, higher: more like a training image to it")
    axes = figure.subplots()
    values = {name: logits.double().numpy() for name, logits in sets.items()}
    low, high = min(map(np.min, values.values())), max(map(np.max, values.values()))
    edges: list[float] = np.linspace(low, high if high > low else low + 1, HISTOGRAM_BINS + 1).tolist()
    for name, value in values.items():
        mean = 0.0 if abs(value.mean()) < 1e-6 * (high - low) else value.mean()  # rounding, of what is 0 by definition
        label = f"{name.replace('_', '-')} ({len(value):,}), mean {mean:.3g}"
        weights = np.full(len(value), 1 / len(value))
        axes.hist(value, edges, weights=weights, histtype="step", linewidth=1.6, color=COLORS[name], label=label)
        axes.axvline(value.mean(), color=COLORS[name], linewidth=0.8, linestyle="--")
    of_class = " of the same class" if has_classes else ""
    axes.set_xlabel(f"output (logit), reckoned from the mean on generated images{of_class}; dashed: means")
    axes.set_ylabel("share of images")
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for the legend
    axes.legend(fontsize=8, loc="upper left")
    return figure
