"""What is judged: the generator of a run, a checkpoint or a snapshot, or images that are there already.

A subject makes image i of N from its number alone, in batches of one shape, so that ranks share the work and agree.

Axes: N images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bigtrain.draws import seed_of
from bigtrain.engine.checkpoints.names import MANIFEST
from bigtrain.engine.precision import set_backend_precision
from bigtrain.evaluation.images import ImageSet, open_images
from bigtrain.evaluation.run_folders import is_run, run_of
from bigtrain.evaluation.which import ALL_AVERAGES, find_model
from bigtrain.metrics.evaluation import Generate, Labels
from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.image import ImageSpec
from bigtrain.sampling.truncation import Truncation
from bigtrain.training.judging import sampling_facts
from bigtrain.training.loaded import LoadedModel, load
from bigtrain.training.sampler import Sampler, StandingSettings


@dataclass(frozen=True)
class Drawing:
    """How images are drawn from a generator."""

    truncation: Truncation = Truncation()
    seed: int = 0
    standing_batches: int = 16
    standing_images: int = 256
    batch_images: int = 64
    """Of every forward pass."""


class Subject(Protocol):
    """What is judged."""

    label: str
    """How tables call it."""
    title: str
    """How pictures call it."""

    @property
    def images_seen(self) -> int | None:
        """Of a generator, in training."""
        ...

    @property
    def num_images(self) -> int | None:
        """How many images there are; None: as many as one asks for."""
        ...

    @property
    def run_folder(self) -> Path | None:
        """The folder of the run that it comes from, where it lies in one."""
        ...

    @property
    def image(self) -> ImageSpec:
        """What its images are."""
        ...

    def sampling(self, drawing: Drawing) -> dict[str, Any]:
        """Return what belongs to the protocol of its figures, as JSON values."""
        ...

    def generate(self, drawing: Drawing, num_images: int) -> Generate:
        """Return what makes the first `num_images` images."""
        ...

    def labels(self, drawing: Drawing, num_images: int) -> Labels | None:
        """Return what tells the classes of these images; None: they have none."""
        ...


class Generator:
    """A trained generator with one of its moving averages."""

    num_images = None

    def __init__(self, path: Path, model: LoadedModel, device: torch.device) -> None:
        self.path, self.model, self.images_seen = path, model, model.images_seen
        self.label = f"{path} {model.average}"
        self.run_folder = run_of(path)
        self.title = f"{model.recipe.name}, {model.images_seen:,} images seen, {model.average}"
        networks = {name: model.game.networks[name] for name in model.game.averaged}
        self._sampler = Sampler(model.game, networks, device, Drawing.batch_images)
        self._stands_for: tuple[str, StandingSettings] | None = None

    @property
    def image(self) -> ImageSpec:
        """What its images are."""
        return self.model.image

    def sampling(self, drawing: Drawing) -> dict[str, Any]:
        """Return truncation, average and the law of the labels, as evaluations of training do."""
        return sampling_facts(self.model.recipe, self.model.average) | {"truncation": str(drawing.truncation)}

    def generate(self, drawing: Drawing, num_images: int) -> Generate:
        """Return what draws image i from (seed, i); BatchNorm's statistics are recomputed for this drawing."""
        set_backend_precision(self.model.recipe.tf32, self.model.recipe.deterministic)  # as training generates
        self._sampler.batch_images = drawing.batch_images
        standing = StandingSettings(drawing.standing_batches, drawing.standing_images, drawing.seed)
        if self._stands_for != (str(drawing.truncation), standing):
            self._sampler.restand(drawing.truncation, standing)
            self._stands_for = (str(drawing.truncation), standing)
        seed = _seed(drawing)

        def generate(index_N: Tensor) -> Tensor:  # noqa: N803 (axis)
            return torch.cat(list(self._sampler.images(index_N, None, drawing.truncation, seed)))

        return generate

    def labels(self, drawing: Drawing, num_images: int) -> Labels | None:
        """Return the classes that images are drawn of."""
        seed = _seed(drawing)
        return (lambda index_N: self._sampler.labels(index_N, seed)) if self.image.num_classes else None


class Pictures:
    """Images that are there already."""

    images_seen = None
    run_folder = None

    def __init__(self, images: ImageSet) -> None:
        self.images, self.label, self.title = images, images.place, images.place
        self.num_images = images.num_images

    @property
    def image(self) -> ImageSpec:
        """What the images are."""
        return self.images.image

    def sampling(self, drawing: Drawing) -> dict[str, Any]:
        """Return that nothing was drawn.

        Raises:
            UsageError: a truncation was asked for.
        """
        if drawing.truncation != Truncation():
            raise UsageError(
                f"truncation {drawing.truncation} is for generators, and {self.label} is a set of images; leave it out"
            )
        return {"images": "as they are"}

    def generate(self, drawing: Drawing, num_images: int) -> Generate:
        """Return what reads the images: all of them in their order, or a choice by the seed where fewer are wanted."""
        order_N = self._order(drawing, num_images)

        def generate(index_N: Tensor) -> Tensor:  # noqa: N803 (axis)
            padded_N = index_N.cpu().clamp(max=len(order_N) - 1)
            return self.images.load(order_N[padded_N].tolist())[0]

        return generate

    def labels(self, drawing: Drawing, num_images: int) -> Labels | None:
        """Return the labels that the images have."""
        order_N = self._order(drawing, num_images)
        has_classes = self.image.num_classes > 0
        return (lambda index_N: self.images.labels(order_N[index_N.cpu()].tolist())) if has_classes else None

    def _order(self, drawing: Drawing, num_images: int) -> Tensor:
        if num_images == self.num_images:
            return torch.arange(num_images)
        generator = torch.Generator().manual_seed(seed_of(drawing.seed, "choice of images"))
        return torch.randperm(self.num_images, generator=generator)[:num_images]


def _seed(drawing: Drawing) -> int:
    return seed_of(drawing.seed, "evaluation")


@dataclass(frozen=True)
class Choice:
    """Which of a run's checkpoints and averages are judged."""

    checkpoint: str = "newest"
    """`newest`, `best`, or images seen."""
    by: str | None = None
    """Figure that makes the best one; None: the one that the run's recipe ranks by."""
    average: str | None = None
    """Name of a moving average, or `all`; None: the recipe's first."""


def open_subjects(what: str, choice: Choice, device: torch.device) -> Iterator[Subject]:
    """Yield what a path holds: one subject, or one for each moving average.

    Raises:
        CheckpointError: no usable checkpoint.
        DataError: no set of images.
        UsageError: the average is unknown, or a choice was made where there is none.
    """
    path = Path(what)
    if not is_model(path):
        if choice != Choice():
            raise UsageError(f"{what} is a set of images, without checkpoints and averages; leave that option out")
        yield Pictures(open_images(what))
        return
    where = find_model(path, choice.checkpoint, choice.by, choice.average)
    model = load(where, None if choice.average == ALL_AVERAGES else choice.average)
    yield Generator(where, model, device)
    if choice.average == ALL_AVERAGES:
        for settings in model.recipe.ema[1:]:
            yield Generator(where, load(where, settings.name), device)


def is_model(path: Path) -> bool:
    """Tell whether a path is a run, a checkpoint or a snapshot."""
    return is_run(path) or (path / MANIFEST).is_file() or (path.is_file() and path.suffix == ".safetensors")
