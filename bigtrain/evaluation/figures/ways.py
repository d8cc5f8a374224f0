"""Ways from image to image, from class to class, and sums of latents.

A picture shows the way from the first key image to the last in evenly spaced steps; a film goes on from the last one
back to the first, and so loops without a jump.

Axes: P positions on a way.
"""

from collections.abc import Iterator

import torch

from bigtrain.evaluation.figures.base import MOST_DRAWN, Drawing, FigureSettings, Source, figure, positive
from bigtrain.recipe.errors import UsageError
from bigtrain.sampling.grids import square_columns
from bigtrain.sampling.interpolation import INTERPOLATIONS
from bigtrain.sampling.sheets import Sheet
from bigtrain.training.codes import Codes, along, combined, joined

KEYS = 4  # key images of a way, unless they are named
ROWS = 4
COLUMNS = 10
STEPS = 30  # frames from one key image to the next
SLERP = "slerp"
SUM_NAMES = ("a", "- b", "+ c", "= a - b + c")


@figure("latent-way", "index", "labels", "codes", "rows", "columns", "steps", "way", "truncation")
def latent_way(source: Source, settings: FigureSettings) -> Drawing:
    """From latent to latent, one row a class; a generator without classes gives each row latents of its own."""
    if settings.codes is not None:
        return _way_figure(source, settings, [source.codes([], None)], ())
    labels = source.class_labels(positive(settings.rows, ROWS, "rows"))
    keys, names = settings.index, source.names_of(labels)
    if labels:
        numbers = keys or tuple(range(KEYS))
        rows = [source.codes(numbers, [label] * len(numbers)) for label in labels]
    else:
        num_rows = 1 if keys else positive(settings.rows, ROWS, "rows")
        rows = [source.codes(keys or range(row * KEYS, (row + 1) * KEYS), None) for row in range(num_rows)]
    return _way_figure(source, settings, rows, names)


@figure("class-way", "index", "labels", "rows", "columns", "steps", "way", "truncation")
def class_way(source: Source, settings: FigureSettings) -> Drawing:
    """From class to class, one row a latent."""
    labels = source.class_labels(KEYS)
    if not labels:
        raise UsageError(f"{source.model.path} was trained without labels; draw the figure 'latent-way'")
    numbers = settings.index or tuple(range(positive(settings.rows, ROWS, "rows")))
    rows = [source.codes([number] * len(labels), labels) for number in numbers]
    return _way_figure(source, settings, rows, ())


def _way_figure(source: Source, settings: FigureSettings, rows: list[Codes], names: tuple[str, ...]) -> Drawing:
    num_keys = len(rows[0])
    if num_keys < 2:
        raise UsageError(f"a way goes through at least 2 images or classes, got {num_keys}; name more")
    columns = positive(settings.columns, COLUMNS, "columns", least=2)
    steps, kind = positive(settings.steps, STEPS, "steps", most=MOST_DRAWN), settings.way or SLERP
    INTERPOLATIONS.get(kind)  # styles go by straight lines, but a wrong word is one
    render = source.model.render
    along(rows[0], torch.zeros(1, dtype=torch.float64), kind)  # what cannot be mixed is refused before drawing

    def still() -> Sheet:
        position_P = torch.linspace(0, num_keys - 1, columns, dtype=torch.float64)
        return Sheet(render(joined([along(row, position_P, kind) for row in rows])), columns, names)

    def frames() -> Iterator[Sheet]:
        for frame in range(num_keys * steps):
            position_P = torch.tensor([frame / steps], dtype=torch.float64)
            yield Sheet(render(joined([along(row, position_P, kind) for row in rows])), square_columns(len(rows)))

    return Drawing(still, frames)


@figure("arithmetic", "index", "labels", "codes", "truncation")
def arithmetic(source: Source, settings: FigureSettings) -> Drawing:
    """a - b + c, one row for every three images, of styles, or of latents and class embeddings; a row is of one class
    unless classes are named."""
    index = settings.index or tuple(range(3 * ROWS))
    labels = source.class_labels(ROWS)
    repeats = 3 if settings.labels is None else 1
    each = [labels[number // repeats % len(labels)] for number in range(len(index))] if labels else None
    codes = source.codes(index, each if settings.codes is None else None)
    if len(codes) % 3:
        raise UsageError(f"a - b + c takes images by threes, got {len(codes)}; name 3, 6 or more")
    thirds = [codes[slice(first, None, 3)] for first in range(3)]
    total = combined(*thirds)

    def still() -> Sheet:
        shown = [source.model.render(part) for part in (*thirds, total)]
        return Sheet(torch.stack(shown, 1).flatten(0, 1), len(SUM_NAMES), column_names=SUM_NAMES)

    return Drawing(still)
