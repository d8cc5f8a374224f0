"""Training in time-lapse: images of latents that stay the same, from the grids that a run writes or from its snapshots.

Axes: T times, N images, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bigtrain.evaluation.figures.base import Drawing, FigureSettings, Source, figure, positive
from bigtrain.recipe.errors import UsageError
from bigtrain.sampling.grids import GAP_PIXELS
from bigtrain.sampling.sheets import Sheet

COLUMNS = 8  # times in the picture
ROWS = 8  # images in the picture
SNAPSHOT_COLUMNS = 8  # images of a class in a film of snapshots
FRAMES_PER_S = 8
LAST_FRAMES = 12  # the end is shown so long
Times = tuple[list[int], list[Path]]


@figure("lapse", "source", "rows", "columns", "labels", "truncation")
def lapse(source: Source, settings: FigureSettings) -> Drawing:
    """The same latents over training, from RUN/samples or RUN/snapshots."""
    run = source.path
    if not (run / "recipe.yaml").is_file():
        raise UsageError(f"{run} is no run folder, which a time-lapse is made of; name RUN")
    kind = settings.source or ("snapshots" if len(_dated(run / "snapshots", ".safetensors")[0]) > 1 else "samples")
    if kind not in SOURCES:
        raise UsageError(f"--source {kind}: a time-lapse is made of {' or '.join(SOURCES)}; write one of them")
    if kind == "samples" and (settings.labels or settings.truncation):
        raise UsageError("RUN/samples have the labels and the truncation of the recipe; leave both out")
    suffix, read = SOURCES[kind]
    images_seen, paths = _dated(run / kind, suffix)
    if len(paths) < 2:
        raise UsageError(
            f"{run / kind} holds {len(paths)} of the at least 2 {kind} of a time-lapse; train with "
            f"{kind}.every_images set, or wait"
        )
    columns = positive(settings.columns, COLUMNS, "columns", least=2)
    rows = positive(settings.rows, ROWS, "rows")

    def still() -> Sheet:
        chosen = np.unique(np.linspace(0, len(paths) - 1, columns).round().astype(int)).tolist()
        sheets = [read(source, paths[number]) for number in chosen]
        first_N = torch.arange(0, len(sheets[0].image_NCHW), sheets[0].columns)[:rows]  # the first of each row
        image_NTCHW = torch.stack([sheet.image_NCHW[first_N] for sheet in sheets], 1)
        names = tuple(_short(images_seen[number]) for number in chosen)
        return Sheet(image_NTCHW.flatten(0, 1), len(sheets), sheets[0].row_names[:rows], names)

    def frames() -> Iterator[Sheet]:
        for number, path in enumerate(paths):
            sheet = replace(read(source, path), title=f"{images_seen[number]:,} images")
            yield from [sheet] * (LAST_FRAMES if number == len(paths) - 1 else 1)

    return Drawing(still, frames, FRAMES_PER_S)


def _dated(folder: Path, suffix: str) -> Times:
    """Return the files that are named after a number of images seen, in their order."""
    paths = sorted(path for path in folder.glob(f"*{suffix}") if path.stem.isdigit())
    return [int(path.stem) for path in paths], paths


def _short(images_seen: int) -> str:
    """Write a count with a suffix, as recipes have them."""
    for size, suffix in ((1_000_000, "M"), (1_000, "k")):
        if images_seen >= size:
            return f"{images_seen / size:.3g}{suffix}"
    return str(images_seen)


def _from_grid(source: Source, path: Path) -> Sheet:
    """Cut a grid of RUN/samples into its images.

    Raises:
        UsageError: the file is no grid of this run.
    """
    image, columns = source.recipe.image.spec, source.recipe.samples.columns
    try:
        with Image.open(path) as opened:
            pixels = np.array(opened)
    except (OSError, UnidentifiedImageError) as error:
        raise UsageError(f"{path} cannot be read ({error}); remove it") from error
    sheet_HWC = torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1)
    pitch_y, pitch_x = image.size[0] + GAP_PIXELS, image.size[1] + GAP_PIXELS
    rows, rest = divmod(sheet_HWC.shape[0] + GAP_PIXELS, pitch_y)
    if rest or sheet_HWC.shape[1] + GAP_PIXELS != columns * pitch_x:
        height, width = sheet_HWC.shape[:2]
        raise UsageError(
            f"{path} is {width}x{height} px, no grid of {columns} columns of {image.size[1]}x{image.size[0]} px; "
            "remove it"
        )
    cut: list[Tensor] = [
        sheet_HWC[y * pitch_y : y * pitch_y + image.size[0], x * pitch_x : x * pitch_x + image.size[1]]
        for y in range(rows)
        for x in range(columns)
    ]
    return Sheet(torch.stack(cut).permute(0, 3, 1, 2), columns)


def _from_snapshot(source: Source, path: Path) -> Sheet:
    """Draw the figure `classes`, or `images` where there are none, of a snapshot."""
    settings = replace(source.settings, rows=None, source=None)
    at_time = Source(path, settings)
    model = at_time.model
    law = at_time.law()
    labels = at_time.class_labels(ROWS)
    numbers = list(range(SNAPSHOT_COLUMNS)) * max(1, len(labels))
    each = [label for label in labels for _ in range(SNAPSHOT_COLUMNS)] or None
    codes = model.codes(numbers, labels=each, truncation=law, seed=settings.seed)
    return Sheet(model.render(codes), SNAPSHOT_COLUMNS, at_time.names_of(labels))


SOURCES: dict[str, tuple[str, Callable[[Source, Path], Sheet]]] = {
    "samples": (".png", _from_grid),
    "snapshots": (".safetensors", _from_snapshot),
}
