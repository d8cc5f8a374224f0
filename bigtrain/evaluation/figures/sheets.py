"""Sheets: images by number, one row a class, and the same images at several truncations.

Axes: N images.
"""

from collections.abc import Iterator

import torch

from bigtrain.evaluation.figures.base import Drawing, FigureSettings, Source, figure, positive
from bigtrain.recipe.errors import UsageError
from bigtrain.sampling.grids import square_columns
from bigtrain.sampling.sheets import Sheet
from bigtrain.sampling.truncation import Truncation

MOST_ROWS = 10  # of classes, unless they are named
COLUMNS = 8
IMAGES = 16
ROWS = 4
STRIP_FRAMES_PER_S = 3  # of a film that shows one truncation after the other
PSI_STRIP = ("psi:-1", "psi:-0.5", "psi:0", "psi:0.5", "psi:0.7", "psi:1")
LATENT_STRIP = ("resample:0.05", "resample:0.25", "resample:0.5", "resample:1", "resample:2", "none")


@figure("images", "index", "labels", "codes", "columns", "truncation")
def images(source: Source, settings: FigureSettings) -> Drawing:
    """Images by number, or those of a file of codes."""
    index = settings.index or tuple(range(IMAGES))
    codes = source.codes(index, _cycled(settings.labels, len(index)))
    columns = positive(settings.columns, square_columns(len(codes)), "columns")
    return Drawing(lambda: Sheet(source.model.render(codes), columns))


@figure("classes", "labels", "columns", "truncation")
def classes(source: Source, settings: FigureSettings) -> Drawing:
    """One row a class; a column's images are made of one latent."""
    labels = source.class_labels(MOST_ROWS)
    if not labels:
        raise UsageError(f"{source.model.path} was trained without labels; draw the figure 'images'")
    columns = positive(settings.columns, COLUMNS, "columns")
    codes = source.codes(list(range(columns)) * len(labels), [label for label in labels for _ in range(columns)])
    return Drawing(lambda: Sheet(source.model.render(codes), columns, source.names_of(labels)))


@figure("truncation", "index", "labels", "rows", "truncation")
def truncation(source: Source, settings: FigureSettings) -> Drawing:
    """The same images at several truncations, with BatchNorm's statistics recomputed for each."""
    default = PSI_STRIP if hasattr(source.model.generator, "truncate") else LATENT_STRIP
    texts = settings.truncation.split(",") if settings.truncation else default
    laws = [Truncation.parse(text) for text in texts]
    index = settings.index or tuple(range(positive(settings.rows, ROWS, "rows")))
    labels = _cycled(settings.labels, len(index))
    model = source.model
    columns = []
    for law in laws:
        source.stand(law)
        columns.append(model.render(model.codes(index, labels=labels, truncation=law, seed=settings.seed)))
    names = tuple(map(str, laws))
    family = f"{laws[0].law}:"
    short = tuple(name.removeprefix(family) for name in names)  # the law of the first stands over all of them

    def still() -> Sheet:
        return Sheet(torch.stack(columns, 1).flatten(0, 1), len(laws), column_names=short, title=family)

    def frames() -> Iterator[Sheet]:
        there = list(range(len(laws)))
        for number in (*there, *there[-2:0:-1]):  # and back, without either end twice
            yield Sheet(columns[number], len(index), title=names[number])

    return Drawing(still, frames, STRIP_FRAMES_PER_S)


def _cycled(labels: tuple[str, ...] | None, count: int) -> list[str] | None:
    return None if labels is None else [labels[number % len(labels)] for number in range(count)]
