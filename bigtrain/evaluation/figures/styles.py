"""What styles and noise do, after figures 3 to 5 of Karras et al. 2019 (arXiv:1812.04948).

Departs from the paper: its groups of layers (coarse to 8 px, middle to 32 px, fine) leave nothing to small images, so
the default groups are thirds of the layers. The noise of one picture is constant in one column, drawn anew in others.

Axes: N images, L layers (styles), W style (after L), C channels, H height, W width (after H), R realisations.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bigtrain.draws import seed_of
from bigtrain.evaluation.figures.base import MOST_DRAWN, Drawing, FigureSettings, Source, blank, figure, positive
from bigtrain.networks.layers.modulated import StyledConv2d
from bigtrain.recipe.errors import UsageError
from bigtrain.sampling.grids import to_pixels
from bigtrain.sampling.sheets import Sheet
from bigtrain.training.codes import STYLE, Codes, joined
from bigtrain.training.loaded import LoadedModel

GROUPS = ("coarse", "middle", "fine")
ROWS, COLUMNS = 2, 5
NOISE_ROWS = 3
SHOWN_REALISATIONS = 3
REALISATIONS = 100  # of the standard deviation, as in the paper's figure 4
REALISATIONS_AT_ONCE = 20
ONE_LEVEL = 2 / 255  # of 8-bit pixels; a smaller deviation is not worth white


@figure("mixing", "index", "codes", "rows", "columns", "layers", "truncation", "labels")
def mixing(source: Source, settings: FigureSettings) -> Drawing:
    """Images of the rows that get some layers' styles from the images of the columns, a group of rows for each range of
    layers."""
    num_styles = _require_styles(source, "mixing")
    groups = _layers(settings.layers, num_styles)
    columns = positive(settings.columns, COLUMNS, "columns")
    num_rows = positive(settings.rows, ROWS, "rows") * len(groups)
    codes = _numbered(source, settings, columns + num_rows)
    if len(codes) <= columns:
        raise UsageError(f"{len(codes)} images are {columns} columns and no row; name more of them, or lower --columns")
    top, left = codes[:columns], codes[columns:]
    per_group = -(-len(left) // len(groups))
    mixed, names = [], [""]
    for row in range(len(left)):
        name, layers = groups[row // per_group]
        mixed.append(Codes({STYLE: _mixed(left[[row]].parts[STYLE], top.parts[STYLE], layers)}))
        names.append(f"{name} {layers.start}-{layers.stop - 1}" if name else f"{layers.start}-{layers.stop - 1}")

    def still() -> Sheet:
        image_NCHW = source.model.render(joined([top, left, *mixed]))
        rows = [torch.cat([blank(image_NCHW), image_NCHW[:columns]])]
        for row in range(len(left)):
            first = len(codes) + row * columns
            one = image_NCHW[columns + row : columns + row + 1]
            rows.append(torch.cat([one, image_NCHW[first : first + columns]]))
        return Sheet(torch.cat(rows), columns + 1, tuple(names))

    return Drawing(still)


def _mixed(row_1LW: Tensor, column_NLW: Tensor, layers: range) -> Tensor:
    """Return the row's styles with those of the columns in some layers, [N, L, W]."""
    mixed_NLW = row_1LW.repeat(len(column_NLW), 1, 1)
    mixed_NLW[:, layers.start : layers.stop] = column_NLW[:, layers.start : layers.stop]
    return mixed_NLW


def _layers(text: str | None, num_styles: int) -> list[tuple[str, range]]:
    """Return names and ranges of layers: those asked for, else thirds.

    Raises:
        UsageError: not ranges of layers that there are.
    """
    if text is None:
        ends = [round(num_styles * third / len(GROUPS)) for third in range(len(GROUPS) + 1)]
        return [(name, range(ends[number], ends[number + 1])) for number, name in enumerate(GROUPS)]
    groups = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit() or not int(first) <= int(last or first) < num_styles:
            raise UsageError(
                f"--layers {text}: '{part}' is no range of this generator's layers, which are 0 to {num_styles - 1}; "
                "write for example 0-3,4-7"
            )
        groups.append(("", range(int(first), int(last or first) + 1)))
    return groups


@figure("noise", "index", "codes", "rows", "realisations", "truncation", "labels")
def noise(source: Source, settings: FigureSettings) -> Drawing:
    """Images under several realisations of the noise, their standard deviation, and noise in some layers only."""
    _require_styles(source, "noise")
    convolutions = [each for each in source.model.generator.modules() if isinstance(each, StyledConv2d)]
    codes = _numbered(source, settings, positive(settings.rows, NOISE_ROWS, "rows"))
    count = positive(settings.realisations, REALISATIONS, "realisations", least=2, most=MOST_DRAWN)
    model, half = source.model, len(convolutions) // 2
    shown_RNCHW, deviation_NCHW = _realisations(model, codes, count, settings.seed)
    largest = max(float(deviation_NCHW.max()), ONE_LEVEL)
    columns = [model.render(codes), *(to_pixels(each_NCHW) for each_NCHW in shown_RNCHW)]
    scaled_NCHW = (deviation_NCHW / largest * 255).round().to(torch.uint8)
    columns.append(scaled_NCHW.expand(-1, columns[0].shape[1], -1, -1))
    for silent in (convolutions, convolutions[:half], convolutions[half:]):
        with _without_noise(silent):
            columns.append(model.render(codes))
    names = ("image", *(f"noise {number + 1}" for number in range(SHOWN_REALISATIONS)), "deviation")
    note = (
        f"deviation: standard deviation over {count} realisations of the noise, mean over channels; white is "
        f"{largest * 127.5:.2f} of 255 levels"
    )

    def still() -> Sheet:
        image_NCHW = torch.stack(columns, 1).flatten(0, 1)
        return Sheet(image_NCHW, len(columns), column_names=(*names, "none", "fine", "coarse"))

    return Drawing(still, notes=(note,))


@torch.no_grad()
def _realisations(model: LoadedModel, codes: Codes, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the first realisations [R, N, C, H, W], and the standard deviation over all of them [N, 1, H, W].

    torch's generator is seeded for each image, so that an image's noise does not depend on its company.
    """
    generator: Any = model.generator
    shown, deviations = [], []
    devices = [model.device] if model.device.type == "cuda" else []
    for number, style_LW in enumerate(codes.parts[STYLE]):
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed_of(seed, "noise figure", number))
            parts = []
            for first in range(0, count, REALISATIONS_AT_ONCE):
                size = min(REALISATIONS_AT_ONCE, count - first)
                parts.append(generator.synthesis(style_LW.expand(size, -1, -1), noise="random").float().cpu())
        image_RCHW = torch.cat(parts)
        shown.append(image_RCHW[torch.arange(SHOWN_REALISATIONS) % count])
        deviations.append(image_RCHW.clamp(-1, 1).double().std(0, correction=0).mean(0, keepdim=True).float())
    return torch.stack(shown, 1), torch.stack(deviations)


@contextmanager
def _without_noise(convolutions: list[StyledConv2d]) -> Iterator[None]:
    """Take the noise from some layers inside."""
    before = [each.noise_strength.data for each in convolutions]
    for each in convolutions:
        each.noise_strength.data = torch.zeros_like(each.noise_strength)
    try:
        yield
    finally:
        for each, strength in zip(convolutions, before, strict=True):
            each.noise_strength.data = strength


def _require_styles(source: Source, kind: str) -> int:
    generator = source.model.generator
    if not hasattr(generator, "synthesis"):
        raise UsageError(
            f"{source.model.path}: this generator has no styles, which figure '{kind}' shows; name a StyleGAN2 run, or "
            "draw the figure 'latent-way'"
        )
    return int(generator.num_styles)


def _numbered(source: Source, settings: FigureSettings, count: int) -> Codes:
    index = settings.index or tuple(range(count))
    labels = settings.labels
    return source.codes(index, None if labels is None else [labels[n % len(labels)] for n in range(len(index))])
