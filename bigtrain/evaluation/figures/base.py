"""What a figure is: a kind in a table, the settings it reads, and a drawing that is a picture and may be a film.

Axes: N images, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bigtrain.evaluation.codes_file import read_codes
from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.load import load_recipe
from bigtrain.recipe.registry import Registry
from bigtrain.sampling.files import save_png
from bigtrain.sampling.films import check_film_format, save_film
from bigtrain.sampling.sheets import Sheet, draw_sheet, enlargement
from bigtrain.sampling.truncation import NO_TRUNCATION, Truncation
from bigtrain.training.codes import Codes
from bigtrain.training.loaded import LoadedModel, load
from bigtrain.training.sampler import StandingSettings
from bigtrain.training.schema import Recipe

FIGURES = Registry("figure")
READ_BY_ALL = ("seed", "average", "standing")
MOST_CELLS = 1000  # in a row or a column: a sheet is held in memory
MOST_DRAWN = 10_000  # frames from key to key, realisations of noise
DIGITS_IN_NAMES = 12  # of images seen, in the names of files, so that they sort


@dataclass(frozen=True)
class FigureSettings:
    """What was asked for; None where nothing was, so that a kind takes its own default."""

    index: tuple[int, ...] | None = None
    """Numbers of images, as `bigtrain sample` counts them."""
    labels: tuple[str, ...] | None = None
    """Classes, by number or name."""
    codes: Path | None = None
    """File of codes to draw instead of numbered images, as `bigtrain project` writes it."""
    rows: int | None = None
    columns: int | None = None
    steps: int | None = None
    """Frames of a film from one key image to the next."""
    way: str | None = None
    """Interpolation of latents."""
    truncation: str | None = None
    """A truncation, or several with commas between them."""
    layers: str | None = None
    """Ranges of style layers, such as 0-3,4-7."""
    realisations: int | None = None
    """Of the noise."""
    source: str | None = None
    """What a time-lapse is made of: samples or snapshots."""
    standing: StandingSettings | None = None
    """How BatchNorm's statistics are recomputed; None: 16 batches of 256."""
    seed: int = 0
    average: str | None = None


@dataclass(frozen=True)
class Drawing:
    """A figure, made when it is asked for."""

    still: Callable[[], Sheet]
    frames: Callable[[], Iterator[Sheet]] | None = None
    """None: it does not move."""
    frames_per_s: int = 25
    notes: tuple[str, ...] = ()
    """Sentences that a reader of the figure needs."""


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure."""

    reads: frozenset[str]
    """Names of the settings it reads, besides READ_BY_ALL."""
    draw: "Draw"


Draw = Callable[["Source", FigureSettings], Drawing]
"""May raise UsageError: the model cannot be drawn so."""


class Source:
    """A run, checkpoint or snapshot, loaded when it is needed."""

    def __init__(self, path: Path, settings: FigureSettings) -> None:
        self.path, self.settings = path, settings

    @cached_property
    def model(self) -> LoadedModel:
        """The model; raises CheckpointError where there is none."""
        return load(self.path, self.settings.average)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the run folder; raises RecipeError where it cannot be read."""
        return load_recipe(self.path / "recipe.yaml", [], Recipe)

    def law(self) -> Truncation:
        """Return the one truncation asked for, for which BatchNorm's statistics stand from now on."""
        law = Truncation.parse(self.settings.truncation or NO_TRUNCATION)
        self.stand(law)
        return law

    def stand(self, law: Truncation) -> None:
        """Make BatchNorm's statistics stand for a truncation."""
        self.model.restand(law, self.settings.standing or StandingSettings())

    def codes(self, index: Sequence[int], labels: Sequence[int | str] | None) -> Codes:
        """Return the codes of the file that was named, else those of numbered images; labels are one each, or None.

        Raises:
            UsageError: a file and numbers or labels at once, an unknown class.
            CheckpointError: the file cannot be read, or is of another generator.
        """
        law = self.law()
        if self.settings.codes is None:
            return self.model.codes(index, labels=labels, truncation=law, seed=self.settings.seed)
        given = [name for name in ("index", "labels", "truncation") if getattr(self.settings, name) is not None]
        if given:
            raise UsageError(f"--codes {self.settings.codes} says what to draw, so --{given[0]} cannot; leave it out")
        return read_codes(self.settings.codes, self.model)

    def names_of(self, labels: Sequence[int]) -> tuple[str, ...]:
        """Return the names of classes, their numbers where they have none."""
        names = self.model.class_names
        return tuple(names[label] if label < len(names) else str(label) for label in labels)

    def class_labels(self, most: int) -> list[int]:
        """Return the classes asked for, else the first `most`; none for a model without classes.

        Raises:
            UsageError: an unknown class, or classes for a model without.
        """
        if self.settings.labels is not None:
            return self.model.labels(self.settings.labels)
        return list(range(min(most, self.model.image.num_classes)))


def positive(value: int | None, default: int, name: str, least: int = 1, most: int = MOST_CELLS) -> int:
    """Return the value, or the default for None.

    Raises:
        UsageError: it is below `least` or above `most`.
    """
    if value is not None and value < least:
        raise UsageError(f"--{name} {value}: at least {least} is needed; write --{name} {default}")
    if value is not None and value > most:
        raise UsageError(f"--{name} {value}: at most {most:,} is possible; write --{name} {default}")
    return default if value is None else value


def blank(image_NCHW: Tensor) -> Tensor:
    """Return one white image like these."""
    return torch.full_like(image_NCHW[:1], 255)


def drawing(kind: str, source: Source) -> Drawing:
    """Return a figure of some kind.

    Raises:
        RecipeError: there is no such kind.
        UsageError: a setting that it does not read, or a model that cannot be drawn so.
    """
    entry: FigureKind = FIGURES.get(kind)
    for name in FigureSettings.__dataclass_fields__:
        if name not in (*entry.reads, *READ_BY_ALL) and getattr(source.settings, name) is not None:
            raise UsageError(f"figure '{kind}' has no use for --{name}; it takes {_options(entry)}: leave it out")
    return entry.draw(source, source.settings)


def _options(entry: FigureKind) -> str:
    return ", ".join(f"--{name}" for name in sorted(entry.reads)) or "no such option"


def save_drawing(drawn: Drawing, path: Path, factor: int | None, frames_per_s: int | None) -> Path:
    """Write a figure as a picture (.png) or as a film (.mp4, .gif, .webp).

    Args:
        drawn: the figure.
        path: where to.
        factor: whole number by which images are enlarged; None: what makes their shorter side 64 pixels or more.
        frames_per_s: None: the figure's own.

    Raises:
        UsageError: it does not move, or there is no such format here.
        OSError: see `written_aside`.
    """
    check_output(drawn, path)
    if path.suffix.lower() == ".png":
        return save_png(path, _drawn(drawn.still(), factor))
    assert drawn.frames is not None
    return save_film(path, (_drawn(sheet, factor) for sheet in drawn.frames()), frames_per_s or drawn.frames_per_s)


def check_output(drawn: Drawing, path: Path) -> None:
    """Refuse a file that this figure cannot be written to.

    Raises:
        UsageError: see `save_drawing`.
    """
    if path.suffix.lower() == ".png":
        return
    check_film_format(path)
    if drawn.frames is None:
        raise UsageError(f"{path}: this figure does not move; write it to a .png")


def _drawn(sheet: Sheet, factor: int | None) -> Tensor:
    height, width = sheet.image_NCHW.shape[-2:]
    return draw_sheet(sheet, factor or enlargement(height, width))


def figure(name: str, *reads: str) -> Callable[[Draw], Draw]:
    """Return a decorator that makes a function known as a kind of figure which reads settings of these names."""
    unknown = set(reads) - set(FigureSettings.__dataclass_fields__)
    assert not unknown, f"no settings of figures: {unknown}"

    def register(draw: Draw) -> Draw:
        FIGURES.add(name)(FigureKind(frozenset(reads), draw))
        return draw

    return register


def default_output(source: Source, kind: str) -> Path:
    """Return RUN/figures/<images>-<kind>.png.

    Raises:
        UsageError: the source is no run.
    """
    if not (source.path / "checkpoints").is_dir():
        raise UsageError(f"{source.path} is no run folder, whose figures/ would take the picture; add --out FILE.png")
    return source.path / "figures" / f"{source.model.images_seen:0{DIGITS_IN_NAMES}d}-{kind}.png"
